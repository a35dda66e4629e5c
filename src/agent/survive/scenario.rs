//! What is done on a device before, and while the power fails.

use super::device::{Device, Flaw, Flaws, GUARD, Note, slot};
use super::fleet::{Fleet, release};
use crate::domain::command::Progress;
use crate::domain::deployment::Stage;
use crate::update::driver::{Ticket, outcome};
use std::fs;
use std::sync::Arc;
use tempfile::TempDir;
use tokio::time::timeout;

/// One thing that somebody does.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Orders a release of the repository.
    Update(&'static str),
    /// Installs a release from a file.
    File(&'static str),
    Rollback,
    Abort,
    /// Waits until the deployment has come so far.
    Until(Stage),
    /// Waits until all that was ordered has ended.
    Idle,
}

/// A device, and what is done on it.
#[derive(Debug, Clone)]
pub(super) struct Scenario {
    pub(super) name: &'static str,
    /// What was committed before, one after the other.
    pub(super) before: &'static [&'static str],
    /// Parts of a download and engines of models lie there that nothing needs.
    pub(super) litter: bool,
    /// What the models do until the cut.
    pub(super) flaws: Flaws,
    /// And after it.
    pub(super) flaws_after: Flaws,
    pub(super) steps: &'static [Step],
    /// What may serve in the end, when the power failed somewhere; nothing may only where this is empty before.
    pub(super) serves: &'static [&'static str],
}

const BOTH: &[&str] = &["1.0.0", "2.0.0"];

use Step::{Abort, File, Idle, Rollback, Until, Update};

pub(super) const FIRST: Scenario = Scenario {
    name: "first-install",
    before: &[],
    litter: false,
    flaws: &[],
    flaws_after: &[],
    steps: &[Update("3.0.0"), Idle],
    serves: &["3.0.0"],
};

pub(super) const UPDATE: Scenario = Scenario {
    name: "update",
    before: BOTH,
    steps: &[Update("3.0.0"), Idle],
    serves: &["2.0.0", "3.0.0"],
    ..FIRST
};

pub(super) const REFUSED: Scenario = Scenario {
    name: "refused",
    flaws: &[("3.0.0", Flaw::Wrong)],
    flaws_after: &[("3.0.0", Flaw::Wrong)],
    serves: &["2.0.0"],
    ..UPDATE
};

pub(super) const ROLLED_BACK: Scenario = Scenario {
    name: "rolled-back",
    flaws: &[("3.0.0", Flaw::Dies)],
    flaws_after: &[("3.0.0", Flaw::Dies)],
    serves: &["2.0.0"],
    ..UPDATE
};

pub(super) const ROLLBACK: Scenario =
    Scenario { name: "rollback-by-command", steps: &[Rollback, Idle], serves: &["1.0.0", "2.0.0"], ..UPDATE };

pub(super) const ROLLBACK_TWICE: Scenario =
    Scenario { name: "rollback-of-a-rollback", steps: &[Rollback, Idle, Rollback, Idle], ..ROLLBACK };

pub(super) const SUPERSEDED: Scenario = Scenario {
    name: "superseded",
    flaws: &[("3.0.0", Flaw::Hangs)],
    steps: &[Update("3.0.0"), Until(Stage::OnTrial), Update("4.0.0"), Idle],
    serves: &["2.0.0", "3.0.0", "4.0.0"],
    ..UPDATE
};

pub(super) const ABORTED_TRIAL: Scenario = Scenario {
    name: "aborted-on-trial",
    flaws: &[("3.0.0", Flaw::Hangs)],
    steps: &[Update("3.0.0"), Until(Stage::OnTrial), Abort, Idle],
    serves: &["2.0.0", "3.0.0"],
    ..UPDATE
};

pub(super) const ABORTED_PROBATION: Scenario = Scenario {
    name: "aborted-in-probation",
    flaws: &[("3.0.0", Flaw::Still)],
    steps: &[Update("3.0.0"), Until(Stage::Probation), Abort, Idle],
    serves: &["2.0.0", "3.0.0"],
    ..UPDATE
};

pub(super) const GARBAGE: Scenario = Scenario {
    name: "garbage-collection",
    litter: true,
    steps: &[Update("3.0.0"), Idle, Update("4.0.0"), Idle],
    serves: &["2.0.0", "3.0.0", "4.0.0"],
    ..UPDATE
};

pub(super) const FROM_FILE: Scenario = Scenario { name: "sideload", steps: &[File("3.0.0"), Idle], ..UPDATE };

/// Over HTTP: the first try brings half of the model, the second goes on from there.
pub(super) const HALF: Scenario =
    Scenario { name: "half-a-download", steps: &[Update("3.0.0"), Idle, Update("3.0.0"), Idle], ..UPDATE };

impl Scenario {
    /// A device as it is before the first step, on which nothing runs.
    pub(super) async fn prepare(&self) -> (Fleet, TempDir) {
        let (mut fleet, state) = (Fleet::new(), super::folder());
        let nobody: Note = Arc::new(|_| {});
        let device = Device::start(state.path(), &fleet, None, &[], nobody).await.unwrap();
        for version in self.before {
            let ordered = device.updater.update(&slot(), release(version), Default::default()).unwrap();
            ended(ordered).await;
        }
        device.until_idle().await;
        device.stop().await;
        if self.litter {
            let unknown = "ab".repeat(32);
            fs::write(state.path().join("downloads").join(&unknown), b"part").unwrap();
            fs::write(state.path().join(format!("downloads/{unknown}.validator")), b"tag").unwrap();
            fs::create_dir(state.path().join("engines").join(&unknown)).unwrap();
            for name in ["graph", "record"] {
                fs::write(state.path().join("engines").join(&unknown).join(name), b"made here").unwrap();
            }
        }
        fleet.go_on();
        for step in self.steps {
            if let File(version) = step {
                fleet.file(version);
            }
        }
        (fleet, state)
    }

    /// Does the steps, one after the other.
    /// Gives what came of the orders.
    pub(super) async fn play(&self, device: &mut Device, fleet: &Fleet) -> Vec<Progress> {
        let (mut tickets, mut came) = (Vec::new(), Vec::new());
        for step in self.steps {
            let ordered = match step {
                Update(version) => device.updater.update(&slot(), release(version), Default::default()),
                File(version) => {
                    device.updater.install(&slot(), fleet.file(version), Default::default()).await
                }
                Rollback => device.updater.rollback(&slot()),
                Abort => device.updater.abort(&slot()),
                Until(stage) => {
                    device.until(|there| there == *stage).await;
                    continue;
                }
                Idle => {
                    for ticket in tickets.drain(..) {
                        came.push(ended(ticket).await);
                    }
                    device.until_idle().await;
                    continue;
                }
            };
            tickets.push(ordered.unwrap());
        }
        came
    }
}

/// Waits for an order's end, whatever that is.
pub(super) async fn ended(ticket: Ticket) -> Progress {
    timeout(GUARD, outcome(ticket)).await.expect("an order never ends").expect("the agent ended first")
}
