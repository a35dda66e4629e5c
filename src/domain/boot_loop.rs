//! Whether the bundle that serves brings the agent down, start after start. Pure.
//!
//! A deployment's trial and probation have bounds of their own ([`super::lifecycle::recover`]). This is for all
//! other starts: a model that was good may still take the machine down, on a new driver or with less memory.
//! Each start counts against the bundle that it is to serve, until the agent has been up for a while or is
//! ended by somebody. A bundle that has too many against it is to blame, and the next of the ladder takes its
//! place: the one before it. Where none is left the slot is in safe mode: no model serves, and the agent
//! reports and takes updates. After a while it tries the first of the ladder again, once: the power may have
//! been what failed.

use super::deployment::BundleRef;
use super::id::Digest;
use super::lifecycle::{Deployment, Origin, State};
use serde::{Deserialize, Serialize};

/// Bundles to blame that are remembered for a slot; the oldest is forgotten first.
const BLAMED: usize = 4;

/// What a slot's starts say about its bundles. Kept durably; written before a start serves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Starts {
    /// The bundle that the last starts were to serve.
    of: Option<Digest>,
    /// So many of them in a row were not known to end well, the present one counted.
    count: u32,
    /// Bundles that brought the agent down too often.
    blamed: Vec<Digest>,
}

impl Starts {
    /// Counts a start. Tells which bundle of the ladder is to serve; `None` for safe mode. `max` starts in a
    /// row may end badly; 0: any number.
    pub fn begin<'a>(&mut self, ladder: &[&'a BundleRef], max: u32) -> Option<&'a BundleRef> {
        let mut first = self.best(ladder)?;
        if max > 0 && self.of == Some(first.digest) && self.count >= max {
            self.blame(first.digest);
            first = self.best(ladder)?;
        }
        if self.of != Some(first.digest) {
            (self.of, self.count) = (Some(first.digest), 0);
        }
        self.count = self.count.saturating_add(1);
        Some(first)
    }

    /// The agent was up for long enough, or another bundle serves by somebody's wish.
    pub fn settled(&mut self) {
        self.count = 0;
    }

    /// Somebody ended the agent: the present start says nothing.
    pub fn ended_on_purpose(&mut self) {
        self.count = self.count.saturating_sub(1);
    }

    /// Gives a bundle another chance, for somebody wants it.
    pub fn forgive(&mut self, digest: &Digest) {
        self.blamed.retain(|blamed| blamed != digest);
        if self.of == Some(*digest) {
            self.count = 0;
        }
    }

    /// Gives a bundle one more start, after which it is to blame again.
    pub fn try_once(&mut self, digest: Digest, max: u32) {
        self.forgive(&digest);
        (self.of, self.count) = (Some(digest), max);
    }

    /// Whether a bundle is not to serve.
    pub fn is_blamed(&self, digest: &Digest) -> bool {
        self.blamed.contains(digest)
    }

    fn blame(&mut self, digest: Digest) {
        self.blamed.push(digest);
        let surplus = self.blamed.len().saturating_sub(BLAMED);
        self.blamed.drain(..surplus);
    }

    fn best<'a>(&self, ladder: &[&'a BundleRef]) -> Option<&'a BundleRef> {
        ladder.iter().find(|bundle| !self.is_blamed(&bundle.digest)).copied()
    }
}

/// The bundles that may serve at a start, the wanted one first; `None` where the deployment under way bounds its
/// starts itself. `current` and `previous` are what the slot's links say.
pub fn ladder<'a>(
    deployment: Option<&'a Deployment>,
    current: Option<&'a BundleRef>,
    previous: Option<&'a BundleRef>,
) -> Option<Vec<&'a BundleRef>> {
    let two = |first: Option<&'a BundleRef>, second: Option<&'a BundleRef>| {
        Some(first.into_iter().chain(second).collect())
    };
    let Some(deployment) = deployment else { return two(current, previous) };
    match (&deployment.state, &deployment.origin) {
        (State::Swapping { candidate, .. }, Origin::Previous) => {
            two(Some(candidate), deployment.serving.as_ref())
        }
        (State::RollingBack { .. }, _) => two(deployment.serving.as_ref(), deployment.older.as_ref()),
        (
            State::Staged { .. }
            | State::OnTrial { .. }
            | State::Shadowing { .. }
            | State::Swapping { .. }
            | State::Probation { .. },
            _,
        ) => None,
        (
            State::Resolving
            | State::Fetching { .. }
            | State::Verifying { .. }
            | State::Committed { .. }
            | State::RolledBack { .. }
            | State::Refused { .. },
            _,
        ) => two(current, previous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(number: u8) -> BundleRef {
        let release = format!("detector@{number}.0.0").parse().unwrap();
        BundleRef { release, digest: Digest::from_bytes([number; 32]) }
    }

    #[test]
    fn starts_that_end_badly_lead_down_the_ladder_to_safe_mode() {
        let (new, old) = (bundle(2), bundle(1));
        let ladder = [&new, &old];
        let mut starts = Starts::default();
        let mut served = Vec::new();
        for _ in 0..8 {
            served.push(starts.begin(&ladder, 3).map(|bundle| bundle.release.to_string()));
        }
        let [two, one] = ["detector@2.0.0", "detector@1.0.0"].map(|name| Some(name.to_owned()));
        let expected = [two.clone(), two.clone(), two, one.clone(), one.clone(), one, None, None];
        assert_eq!(served, expected);
        assert!(starts.is_blamed(&new.digest) && starts.is_blamed(&old.digest));
    }

    #[test]
    fn what_ends_well_is_never_to_blame() {
        let new = bundle(2);
        let mut starts = Starts::default();
        for round in 0..20 {
            assert_eq!(starts.begin(&[&new], 2), Some(&new), "{round}");
            if round % 2 == 0 { starts.settled() } else { starts.ended_on_purpose() }
        }
        let mut unbounded = Starts::default();
        assert!((0..50).all(|_| unbounded.begin(&[&new], 0).is_some()));
    }

    #[test]
    fn safe_mode_gives_one_more_start_and_a_person_all_of_them() {
        let new = bundle(2);
        let mut starts = Starts::default();
        while starts.begin(&[&new], 2).is_some() {}
        starts.try_once(new.digest, 2);
        assert!(!starts.is_blamed(&new.digest), "it serves in the run that gives it a chance");
        assert_eq!(starts.begin(&[&new], 2), None, "which was the only one");
        starts.forgive(&new.digest);
        assert_eq!((0..5).map_while(|_| starts.begin(&[&new], 2)).count(), 2);
    }

    #[test]
    fn another_bundle_begins_without_a_stain_and_the_memory_is_bounded() {
        let bundles: Vec<BundleRef> = (1..=9).map(bundle).collect();
        let mut starts = Starts::default();
        for bundle in &bundles {
            assert!(starts.begin(&[bundle], 1).is_some() && starts.begin(&[bundle], 1).is_none());
        }
        assert_eq!(starts.blamed.len(), BLAMED);
    }
}
