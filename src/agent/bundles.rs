//! Where bundles come from: the configured repository, or a `.bundle` file on this machine; both
//! behind the same pinned root.

use crate::config::settings::RepositorySettings;
use crate::domain::deployment::BundleRef;
use crate::domain::health::LinkHealth;
use crate::domain::lifecycle::Origin;
use crate::domain::{Reason, ReasonCode, Release};
use crate::sys::blocking::blocking;
use crate::sys::clock::Clock;
use crate::sys::durable;
use crate::trust::RepositoryClient;
use crate::trust::folder::FolderTransport;
use crate::trust::remembered;
use crate::trust::sideload::ArchiveTransport;
use crate::trust::transport::Transport;
use crate::update::driver::{Catalog, Found};
use crate::update::http::HttpTransport;
use jiff::SignedDuration;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

pub mod appointed;

use appointed::Appointed;

/// The origins of bundles.
pub struct Bundles {
    repository: Option<RepositorySettings>,
    /// Made at the start, or when it is first possible.
    transport: Mutex<Option<Arc<dyn Transport>>>,
    metadata: PathBuf,
    clock: Clock,
    /// How long after its expiry the metadata of a bundle file still counts.
    sideload_grace: Duration,
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
        tidy(state);
        let bundles = Self {
            repository,
            transport: Mutex::default(),
            metadata: state.join("metadata"),
            clock: Clock::open(state.join("clock")),
            sideload_grace: Duration::ZERO,
            last: Mutex::default(),
            appointed: Appointed::default(),
        };
        bundles.appoint();
        match bundles.transport() {
            Err(reason) if reason.code == ReasonCode::RepositoryUnreachable => {
                tracing::error!("{reason}");
                bundles.tried::<()>(&Err(reason));
            }
            Err(reason) => return Err(reason),
            Ok(_) => {}
        }
        Ok(bundles)
    }

    /// Takes bundle files for so long after their metadata has expired: they travel slowly. What is older
    /// than what was seen is refused all the same.
    pub fn with_sideload_grace(self, sideload_grace: Duration) -> Self {
        Self { sideload_grace, ..self }
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

    /// Notes how a try at the repository went, as far as that is the repository's doing.
    fn tried<T>(&self, outcome: &Result<T, Reason>) {
        let outcome = match outcome {
            Err(reason) if reason.code == ReasonCode::RepositoryUnreachable || reason.code.is_trust() => {
                Err(reason.clone())
            }
            Ok(_) | Err(_) => Ok(()),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some(outcome);
    }

    /// The repository's part of a health report. It counts as reached until a try has failed.
    pub fn link(&self) -> LinkHealth {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let unreached = |reason: &Reason| reason.code == ReasonCode::RepositoryUnreachable;
        LinkHealth {
            target: self
                .repository
                .as_ref()
                .and_then(|settings| settings.url.as_ref())
                .map(url::Url::to_string),
            reached: !matches!(&last, Some(Err(reason)) if unreached(reason)),
            last_error: last.and_then(Result::err),
        }
    }

    fn settings(&self) -> Result<&RepositorySettings, Reason> {
        self.repository.as_ref().ok_or_else(|| {
            let detail = "no root to trust is configured; set repository.root (a root.json), and repository.url for updates over the air, in agent.toml";
            Reason::new(ReasonCode::BadRequest, detail)
        })
    }

    async fn pinned(&self) -> Result<Vec<u8>, Reason> {
        let root = &self.settings()?.root;
        tokio::fs::read(root).await.map_err(|error| unpinned(root, &error))
    }

    /// What the transport says of a release, judged as if it were `grace` earlier.
    async fn found(
        &self,
        transport: Arc<dyn Transport>,
        release: &Release,
        grace: Duration,
    ) -> Result<Found, Reason> {
        let client = RepositoryClient::new(transport.clone(), self.pinned().await?, self.metadata.clone());
        let now = self.clock.now();
        // What is on a stick may be some time over; see the setting.
        let now =
            SignedDuration::try_from(grace).ok().and_then(|grace| now.checked_sub(grace).ok()).unwrap_or(now);
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

/// Drops what a writer of the metadata or the clock left behind that a power cut ended. A disk that refuses
/// that is no reason not to start.
fn tidy(state: &Path) {
    let tidied = durable::remove_temporaries_below(&state.join("metadata"));
    if let Err(error) = tidied.and_then(|()| durable::remove_temporaries(state)) {
        tracing::warn!("{error}");
    }
}

/// There is no pinned root, or it cannot be read.
fn unpinned(root: &Path, error: &std::io::Error) -> Reason {
    let detail =
        format!("read the pinned root {}: {error}; copy the repository's root.json there", root.display());
    Reason::new(ReasonCode::BadRequest, detail)
}

impl Catalog for Bundles {
    async fn resolve(&self, origin: &Origin, release: &Release) -> Result<Found, Reason> {
        match origin {
            Origin::Repository => {
                self.settings()?;
                let found = match self.transport() {
                    Ok(Some(transport)) => self.found(transport, release, Duration::ZERO).await,
                    Ok(None) => {
                        let detail = "no repository is configured; set repository.url in agent.toml, or install a .bundle file";
                        return Err(Reason::new(ReasonCode::BadRequest, detail));
                    }
                    Err(reason) => Err(reason),
                };
                self.tried(&found);
                found
            }
            Origin::File { path } => {
                self.settings()?;
                let path = path.clone();
                let archive = blocking(move || ArchiveTransport::open(&path)).await?;
                self.found(Arc::new(archive), release, self.sideload_grace).await
            }
            Origin::Previous => Err(Reason::new(
                ReasonCode::Internal,
                "the previous bundle is on the device and is not resolved",
            )),
        }
    }

    async fn is_delisted(&self, bundle: &BundleRef) -> bool {
        let Ok(pinned) = self.pinned().await else { return false };
        let (metadata, release) = (self.metadata.clone(), bundle.release.clone());
        match blocking(move || remembered::listed_digest(&pinned, metadata, &release)).await {
            Ok(listed) => listed != Some(bundle.digest),
            Err(reason) => {
                tracing::info!(release = %bundle.release, %reason, "whether it is still listed is not known");
                false
            }
        }
    }

    fn is_clock_set(&self) -> bool {
        !self.clock.is_behind()
    }

    async fn release_of(&self, file: &Path) -> Result<Release, Reason> {
        self.settings()?;
        let path = file.to_path_buf();
        let claimed = blocking(move || ArchiveTransport::open(&path)?.archive().claimed_release()).await;
        claimed.map(|(release, _)| release)
    }
}
