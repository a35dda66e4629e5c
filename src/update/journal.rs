//! What was being done: the newest deployment of each slot, and those that have ended.
//!
//! A deployment's new state is durable here before anything is done about it. Where the links and the
//! journal disagree, the links are right (see `domain::lifecycle::recover`), so a journal that was lost
//! costs the history and, at worst, the rest of a probation.

use crate::domain::boot_loop::Starts;
use crate::domain::lifecycle::{Deployment, Origin};
use crate::domain::{Digest, Reason, SlotName};
use crate::sys::store::{Batch, Store, Tree};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// Ended deployments kept, of all slots together.
pub const HISTORY: usize = 100;

/// A deployment that has ended: the record of a success, a refusal or a rollback.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ended {
    /// As it ended.
    pub deployment: Deployment,
    /// When, by the system clock.
    pub at: Timestamp,
}

/// The records of deployments. All calls block; clones share it.
#[derive(Debug, Clone)]
pub struct Journal {
    store: Store,
    newest: Tree<Deployment>,
    ended: Tree<Ended>,
    starts: Tree<Starts>,
}

impl Journal {
    /// Uses the trees `deployments`, `history` and `starts` of the store.
    pub fn new(store: &Store) -> Self {
        let (newest, ended) = (store.tree("deployments"), store.tree("history"));
        Self { store: store.clone(), newest, ended, starts: store.tree("starts") }
    }

    /// Records where a deployment stands, and in the history too once it has ended; durable when this
    /// returns. The same may be recorded again.
    pub fn record(&self, deployment: &Deployment) -> Result<(), Reason> {
        let mut batch = Batch::default();
        batch.put(&self.newest, deployment.slot.as_str(), deployment)?;
        if deployment.is_final() {
            let ended = Ended { deployment: deployment.clone(), at: Timestamp::now() };
            batch.put(&self.ended, deployment.id.as_str(), &ended)?;
            let mut others = self.ended.entries()?;
            others.retain(|(id, _)| id != deployment.id.as_str());
            for (old, _) in others.iter().take(others.len().saturating_sub(HISTORY - 1)) {
                batch.remove(&self.ended, old);
            }
        }
        Ok(self.store.batch(batch)?)
    }

    /// What is known of the starts of a slot.
    pub fn starts(&self, slot: &SlotName) -> Result<Option<Starts>, Reason> {
        Ok(self.starts.get(slot.as_str())?)
    }

    /// Records the starts of a slot; durable when this returns.
    pub fn record_starts(&self, slot: &SlotName, starts: &Starts) -> Result<(), Reason> {
        let mut batch = Batch::default();
        batch.put(&self.starts, slot.as_str(), starts)?;
        Ok(self.store.batch(batch)?)
    }

    /// The newest deployment of a slot, under way or ended.
    pub fn newest(&self, slot: &SlotName) -> Result<Option<Deployment>, Reason> {
        Ok(self.newest.get(slot.as_str())?)
    }

    /// All bundles that deployments under way may still need, and whether there are any under way.
    pub fn needed(&self) -> Result<(BTreeSet<Digest>, bool), Reason> {
        let mut needed = BTreeSet::new();
        let mut any = false;
        for (_, deployment) in self.newest.entries()? {
            if deployment.is_final() {
                continue;
            }
            any = true;
            let bundles = [deployment.candidate(), deployment.serving.as_ref(), deployment.older.as_ref()];
            needed.extend(bundles.into_iter().flatten().map(|bundle| bundle.digest));
        }
        Ok((needed, any))
    }

    /// The files on this machine that deployments under way come from.
    pub fn files(&self) -> Result<Vec<PathBuf>, Reason> {
        let under_way = self.newest.entries()?.into_iter().filter(|(_, deployment)| !deployment.is_final());
        let files = under_way.filter_map(|(_, deployment)| match deployment.origin {
            Origin::File { path } => Some(path),
            Origin::Repository | Origin::Previous => None,
        });
        Ok(files.collect())
    }

    /// Ended deployments of all slots, the oldest first, [`HISTORY`] at most.
    pub fn history(&self) -> Result<Vec<Ended>, Reason> {
        Ok(self.ended.entries()?.into_iter().map(|(_, ended)| ended).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ReasonCode;
    use crate::domain::lifecycle::{Event, step};

    fn begin(number: usize) -> Deployment {
        let id = uuid::Uuid::now_v7().to_string().parse().unwrap();
        let release = format!("detector@{number}.0.0").parse().unwrap();
        Deployment::begin(id, "detector".parse().unwrap(), release, Origin::Repository, None, None).0
    }

    #[test]
    fn what_was_recorded_is_there_after_reopening_and_the_history_is_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store");
        let store = Store::open(&path).unwrap().store;
        let journal = Journal::new(&store);
        for number in 0..HISTORY + 5 {
            let begun = begin(number);
            journal.record(&begun).unwrap();
            assert!(journal.needed().unwrap().1);
            let stop = Event::Stop(Reason::new(ReasonCode::Aborted, "enough"));
            let (ended, _) = step(&begun, stop).unwrap();
            journal.record(&ended).unwrap();
            journal.record(&ended).unwrap();
        }
        let last = begin(999);
        journal.record(&last).unwrap();
        drop((store, journal));

        let journal = Journal::new(&Store::open(&path).unwrap().store);
        assert_eq!(journal.newest(&last.slot).unwrap(), Some(last));
        let history = journal.history().unwrap();
        assert_eq!(history.len(), HISTORY);
        assert_eq!(
            history.last().unwrap().deployment.release.to_string(),
            format!("detector@{}.0.0", HISTORY + 4)
        );
        assert!(history.windows(2).all(|pair| pair[0].deployment.id < pair[1].deployment.id));
    }
}
