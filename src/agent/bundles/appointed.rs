//! Who may sign commands, as last verified: read again at the start, at each update, and from time to time. The
//! regular look is also how a device notices that it is shown an old or a changed repository.
//!
//! What is on disk is the truth: after each refresh it is verified again from the pinned root, so that there
//! is one way to a list and one only, and a start without a network knows the same as the run before it.

use super::{Bundles, unpinned};
use crate::domain::{Reason, Release};
use crate::sys::blocking::blocking;
use crate::sys::clock::Clock;
use crate::trust::RepositoryClient;
use crate::trust::operators::{self, Operators};
use crate::trust::remembered;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{MutexGuard, Notify, watch};

/// Between two looks at the repository, and before the first: a fleet that was switched on at once comes one
/// by one.
const SOONEST: Duration = Duration::from_secs(60);

/// The newest list; an error where there is one that does not hold, and nobody may command.
pub type Known = Result<Arc<Operators>, Reason>;

/// The list, and what is needed to keep it new.
#[derive(Debug)]
pub(super) struct Appointed {
    known: watch::Sender<Known>,
    /// Somebody signed with a key that is not on the list: it may be a new one.
    wanted: Notify,
    /// One at a time looks at the repository: two would race for what was seen.
    turn: tokio::sync::Mutex<()>,
    /// An update wants its turn; it goes first.
    update: Notify,
}

impl Default for Appointed {
    fn default() -> Self {
        Self {
            known: watch::Sender::new(Ok(Arc::new(Operators::none()))),
            wanted: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            update: Notify::new(),
        }
    }
}

impl Appointed {
    /// An update's turn at the repository. A look for operators that is under way is broken off.
    pub(super) async fn turn(&self) -> MutexGuard<'_, ()> {
        if let Ok(turn) = self.turn.try_lock() {
            return turn;
        }
        self.update.notify_waiters();
        self.turn.lock().await
    }
}

impl Bundles {
    /// Who may sign commands now, and every change of it.
    pub fn operators(&self) -> watch::Receiver<Known> {
        self.appointed.known.subscribe()
    }

    /// The releases that the repository lists, as last seen and verified; none where that cannot be told.
    pub async fn listed(&self) -> Vec<Release> {
        let Some(settings) = &self.repository else { return Vec::new() };
        let (root, metadata) = (settings.root.clone(), self.metadata.clone());
        // Between two writes of the metadata, not amid them.
        let _turn = self.appointed.turn.lock().await;
        let listed = blocking(move || {
            let pinned = std::fs::read(&root).map_err(|error| unpinned(&root, &error))?;
            remembered::listed(&pinned, metadata)
        });
        listed.await.unwrap_or_else(|reason| {
            tracing::debug!(%reason, "what the repository lists is not known");
            Vec::new()
        })
    }

    /// The time to judge expiry by.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Has the repository asked for a newer list soon.
    pub fn want_operators(&self) {
        self.appointed.wanted.notify_one();
    }

    /// Reads from disk who may command, verified again from the pinned root.
    pub(super) fn appoint(&self) {
        let Some(settings) = &self.repository else { return };
        // Without a root nothing can be verified, a list included.
        let known = std::fs::read(&settings.root)
            .map_err(|error| unpinned(&settings.root, &error))
            .and_then(|pinned| operators::kept(&pinned, &self.metadata))
            .map(Arc::new);
        self.appointed.known.send_if_modified(|before| {
            if *before == known {
                return false;
            }
            match &known {
                Ok(list) if list.is_listed() => {
                    tracing::info!("operators: {} are listed", list.iter().count())
                }
                Ok(_) => tracing::info!("operators: none are listed"),
                Err(reason) => tracing::warn!("operators: {reason}"),
            }
            *before = known;
            true
        });
    }

    /// Keeps the list new until the agent ends: about every `refresh`, and soon after somebody signed with a
    /// key that is not on it. Never returns.
    pub async fn tend_operators(&self, refresh: Duration) {
        // Not more often than that, however often a stranger asks.
        let soonest = refresh.min(SOONEST);
        loop {
            tokio::time::sleep(jittered(soonest)).await;
            if let Err(reason) = self.refresh_operators().await {
                tracing::warn!("operators: not refreshed, those known before stay: {reason}");
            }
            tokio::select! {
                () = tokio::time::sleep(jittered(refresh - soonest)) => {}
                () = self.appointed.wanted.notified() => {}
            }
        }
    }

    /// Asks the repository once.
    async fn refresh_operators(&self) -> Result<(), Reason> {
        let (Some(settings), Some(transport)) = (&self.repository, self.transport()?) else { return Ok(()) };
        let Ok(pinned) = tokio::fs::read(&settings.root).await else { return Ok(()) };
        let _turn = self.appointed.turn.lock().await;
        let client = RepositoryClient::new(transport, pinned, self.metadata.clone());
        let now = self.clock.now();
        let refreshed = tokio::select! {
            refreshed = client.refresh_operators(now) => refreshed,
            // It fetches the same, and says how that went.
            () = self.appointed.update.notified() => return Ok(()),
        };
        self.appoint();
        // So an owner hears of a repository that is held back or was changed, though nobody asked for a release.
        self.tried(&refreshed);
        refreshed
    }
}

/// Between three quarters of a wait and all of it.
fn jittered(wait: Duration) -> Duration {
    let mut byte = [0];
    // Without random numbers all wait the same.
    let _ = getrandom::fill(&mut byte);
    wait - wait.mul_f64(f64::from(byte[0]) / 1024.0)
}
