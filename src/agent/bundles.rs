//! Where bundles come from: the configured repository, or a `.bundle` file on this machine; both
//! behind the same pinned root.

use crate::config::settings::RepositorySettings;
use crate::domain::health::LinkHealth;
use crate::domain::lifecycle::Origin;
use crate::domain::{Reason, ReasonCode, Release};
use crate::sys::blocking::blocking;
use crate::sys::clock::Clock;
use crate::trust::RepositoryClient;
use crate::trust::folder::FolderTransport;
use crate::trust::sideload::ArchiveTransport;
use crate::trust::transport::Transport;
use crate::update::driver::{Catalog, Found};
use crate::update::http::HttpTransport;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub mod appointed;

use appointed::Appointed;

/// The origins of bundles.
pub struct Bundles {
    repository: Option<RepositorySettings>,
    /// Made at the start, or when it is first possible.
    transport: Mutex<Option<Arc<dyn Transport>>>,
    metadata: PathBuf,
    clock: Clock,
    /// How the last try at the repository went; `None` before the first.
    last: Mutex<Option<Result<(), Reason>>>,
    /// Who may sign commands.
    appointed: Appointed,
}

impl Bundles {
    /// `state` is the state folder: what is known of the repository is kept in its `metadata/`.
    ///
    /// # Errors
    /// When the repository's address cannot be used. A machine without certificate authorities is no
    /// reason: the model must serve all the same, health tells, and each update tries again.
    pub fn new(repository: Option<RepositorySettings>, state: &Path) -> Result<Self, Reason> {
        let bundles = Self {
            repository,
            transport: Mutex::default(),
            metadata: state.join("metadata"),
            clock: Clock::open(state.join("clock")),
            last: Mutex::default(),
            appointed: Appointed::default(),
        };
        bundles.appoint();
        match bundles.transport() {
            Err(reason) if reason.code == ReasonCode::RepositoryUnreachable => {
                tracing::error!("{reason}");
                bundles.tried(Err(reason));
            }
            Err(reason) => return Err(reason),
            Ok(_) => {}
        }
        Ok(bundles)
    }

    /// The way to the repository; `None` where none is configured.
    fn transport(&self) -> Result<Option<Arc<dyn Transport>>, Reason> {
        let at = self.repository.as_ref().and_then(|settings| Some((settings, settings.url.as_ref()?)));
        let Some((settings, url)) = at else { return Ok(None) };
        let mut kept = self.transport.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.is_none() {
            *kept = Some(match url.scheme() {
                "file" => Arc::new(FolderTransport::from_url(url)?),
                _ => Arc::new(HttpTransport::new(url, settings)?),
            });
        }
        Ok(kept.clone())
    }

    /// Notes how a try at the repository went.
    fn tried(&self, outcome: Result<(), Reason>) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// The repository's part of a health report. It counts as reached until a try has failed.
    pub fn link(&self) -> LinkHealth {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        LinkHealth {
            target: self
                .repository
                .as_ref()
                .and_then(|settings| settings.url.as_ref())
                .map(url::Url::to_string),
            reached: !matches!(last, Some(Err(_))),
            last_error: last.and_then(Result::err),
        }
    }

    /// Whether the system's clock is behind a time that is known to have passed.
    pub fn clock_is_behind(&self) -> bool {
        self.clock.is_behind()
    }

    fn settings(&self) -> Result<&RepositorySettings, Reason> {
        self.repository.as_ref().ok_or_else(|| {
            let detail = "no root to trust is configured; set repository.root (a root.json), and repository.url for updates over the air, in agent.toml";
            Reason::new(ReasonCode::BadRequest, detail)
        })
    }

    async fn found(&self, transport: Arc<dyn Transport>, release: &Release) -> Result<Found, Reason> {
        let root = &self.settings()?.root;
        let pinned = tokio::fs::read(root).await.map_err(|error| {
            let detail = format!(
                "read the pinned root {}: {error}; copy the repository's root.json there",
                root.display()
            );
            Reason::new(ReasonCode::BadRequest, detail)
        })?;
        let client = RepositoryClient::new(transport.clone(), pinned, self.metadata.clone());
        let now = self.clock.now();
        let resolved = {
            let _turn = self.appointed.turn().await;
            let resolved = client.resolve(release, now).await;
            // Whatever came of it, the metadata may be newer, and an operator's key revoked.
            self.appoint();
            resolved
        };
        let manifest = resolved?;
        self.clock.accept(now)?;
        Ok(Found { manifest, transport })
    }
}

impl Catalog for Bundles {
    async fn resolve(&self, origin: &Origin, release: &Release) -> Result<Found, Reason> {
        match origin {
            Origin::Repository => {
                self.settings()?;
                let found = match self.transport() {
                    Ok(Some(transport)) => self.found(transport, release).await,
                    Ok(None) => {
                        let detail = "no repository is configured; set repository.url in agent.toml, or install a .bundle file";
                        return Err(Reason::new(ReasonCode::BadRequest, detail));
                    }
                    Err(reason) => Err(reason),
                };
                let reached = match &found {
                    Err(reason) if reason.code == ReasonCode::RepositoryUnreachable => Err(reason.clone()),
                    Ok(_) | Err(_) => Ok(()),
                };
                self.tried(reached);
                found
            }
            Origin::File { path } => {
                self.settings()?;
                let path = path.clone();
                let archive = blocking(move || ArchiveTransport::open(&path)).await?;
                self.found(Arc::new(archive), release).await
            }
            Origin::Previous => Err(Reason::new(
                ReasonCode::Internal,
                "the previous bundle is on the device and is not resolved",
            )),
        }
    }

    async fn release_of(&self, file: &Path) -> Result<Release, Reason> {
        self.settings()?;
        let path = file.to_path_buf();
        let claimed = blocking(move || ArchiveTransport::open(&path)?.archive().claimed_release()).await;
        claimed.map(|(release, _)| release)
    }
}
