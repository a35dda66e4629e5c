//! A power cut at every operation of each scenario, and the recovery from every disk that it may leave.
//!
//! A scenario is played once, and every operation recorded; the disk after a cut is made from the first of
//! them. Of each cut there are several disks: with all that was written, with only what was synced, and with
//! any part of the rest. Disks that are the same are recovered once. The agent starts on each by itself, as
//! after a boot, and then gets one more update.
//!
//! The store's own file is not torn here: see `sys::durable::recorded`.

use super::device::{Device, Flaws, Floors, Note, Told, slot};
use super::fleet::{Fleet, release};
use super::scenario::{self, Scenario, ended};
use super::server::Server;
use crate::domain::command::Progress;
use crate::domain::deployment::{BundleRef, Stage};
use crate::domain::reason::ReasonCode;
use crate::domain::{DeploymentId, Reason};
use crate::sys::durable::TEMPORARY;
use crate::sys::durable::aftermath::{Disk, Left, after};
use crate::sys::durable::recorded::{Effect, Kind, Operation, Record, Recorder};
use crate::update::Folders;
use crate::update::slots;
use crate::update::stage;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What each cut leaves.
const LEFT: [Left; 8] = [
    Left::All,
    Left::Synced,
    Left::Names,
    Left::Zeroes,
    Left::Random(0),
    Left::Random(1),
    Left::Random(2),
    Left::Random(3),
];

/// Of the first cuts, every so-many-th is followed by a second one at any operation.
const AGAIN: usize = 9;

/// More faults than that are not told.
const TOLD: usize = 12;

/// What the world was told, and at how many operations.
type Words = Arc<Mutex<Vec<(usize, Told)>>>;

/// Of a device that runs on the disk below `recorder`.
fn note(recorder: Option<Arc<Recorder>>) -> (Words, Note) {
    let words = Words::default();
    let heard = words.clone();
    let note = move |told| {
        let count = recorder.as_ref().map_or(0, |recorder| recorder.count());
        heard.lock().unwrap().push((count, told));
    };
    (words, Arc::new(note))
}

/// What came of all cuts of a scenario.
struct Sweep {
    operations: usize,
    /// One cut comes before the first operation.
    cuts: usize,
    disks: usize,
    faults: Vec<String>,
}

/// A scenario must survive all of them.
async fn survives(scenario: &Scenario) {
    told(scenario, sweep(scenario, &LEFT, |_| ()).await);
}

fn told(scenario: &Scenario, Sweep { operations, cuts, disks, faults }: Sweep) {
    let told = faults.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} faults\n{told}", faults.len());
    let line = format!("{} {operations} {cuts} {disks} {disks}", scenario.name);
    super::tell("cut", scenario.name, &line);
}

/// Cuts the power at every operation. `plant` changes the record first, as if the code had a bug.
async fn sweep(scenario: &Scenario, left: &[Left], plant: impl Fn(&mut Record)) -> Sweep {
    let (lab, mut record, words) = Lab::play(scenario, None).await;
    plant(&mut record);
    lab.cut_all(scenario, left, &record, &words).await
}

/// What outlasts the cuts of a scenario.
struct Lab {
    fleet: Fleet,
    server: Option<Server>,
    /// What had ended before.
    known: BTreeSet<DeploymentId>,
}

impl Lab {
    /// Plays a scenario to its end.
    async fn play(
        scenario: &Scenario,
        server: Option<fn(&Fleet) -> Server>,
    ) -> (Self, Record, Vec<(usize, Told)>) {
        let (fleet, state) = scenario.prepare().await;
        let server = server.map(|start| start(&fleet));
        let known = history(state.path());
        let recorder = Arc::new(Recorder::at(state.path()));
        let (words, note) = note(Some(recorder.clone()));
        let lab = Self { fleet, server, known };
        let mut device = lab.start(state.path(), scenario.flaws, note).await.unwrap();
        scenario.play(&mut device, &lab.fleet).await;
        device.stop().await;
        let record = recorder.record();
        let real = after(&recorder.look(), 0, Left::All);
        let told = after(&record, record.operations.len(), Left::All);
        assert!(told.holds_the_same(&real), "something was written past the layer");
        let words = words.lock().unwrap().clone();
        (lab, record, words)
    }

    async fn start(&self, state: &Path, flaws: Flaws, note: Note) -> Result<Device, Reason> {
        let address = self.server.as_ref().map(|server| server.address);
        Device::start(state, &self.fleet, address, flaws, note).await
    }

    /// Recovers from every disk that a cut at any operation may leave.
    async fn cut_all(
        &self,
        scenario: &Scenario,
        left: &[Left],
        record: &Record,
        words: &[(usize, Told)],
    ) -> Sweep {
        let cuts = record.operations.len();
        let (mut faults, mut tried, mut seen) = (Vec::new(), 0, HashSet::new());
        for count in 0..=cuts {
            let before: Vec<&Told> =
                words.iter().filter(|(at, _)| *at <= count).map(|(_, told)| told).collect();
            let all_said = before.len() == words.len();
            for &left in left {
                let disk = after(record, count, left);
                if !seen.insert((disk.clone(), before.len())) {
                    continue;
                }
                tried += 1;
                for fault in self.recover(scenario, &disk, &before, all_said).await {
                    let last = count.checked_sub(1).map_or("the start", |last| &record.operations[last].what);
                    faults.push(format!(
                        "{}: cut {count} of {cuts}, after {last}, {left:?}: {fault}",
                        scenario.name
                    ));
                }
            }
        }
        Sweep { operations: cuts, cuts: cuts + 1, disks: tried, faults }
    }

    /// Starts the agent on a disk, lets it finish, and tells what is wrong then.
    async fn recover(
        &self,
        scenario: &Scenario,
        disk: &Disk,
        before: &[&Told],
        all_said: bool,
    ) -> Vec<String> {
        let dir = super::folder();
        disk.write_to(dir.path());
        let mut faults = Vec::new();
        for told in before {
            if let Told::Verified(floors) = told
                && !Floors::of(dir.path()).are_not_below(floors)
            {
                faults.push(format!("what was seen went back: {floors:?}"));
            }
        }
        let (words, note) = note(None);
        let started = self.start(dir.path(), scenario.flaws_after, note).await;
        let mut device = match started {
            Ok(device) => device,
            Err(reason) => {
                faults.push(format!("the agent does not start: {reason}"));
                return faults;
            }
        };
        faults.extend(device.lost.take());
        device.until_recovered().await;

        let may =
            |bundle: &BundleRef| scenario.serves.iter().any(|version| bundle.release == release(version));
        let current = match whole(dir.path(), &self.fleet, &device) {
            Ok(current) => current,
            Err(fault) => {
                faults.push(fault);
                return faults;
            }
        };
        match &current {
            Some(bundle) if may(bundle) => {}
            None if scenario.before.is_empty() => {}
            other => faults.push(format!("{other:?} serves")),
        }
        faults.extend(reported(&device, before, &words, &self.known));
        if let Some(Told::Ended { current: told, stage, .. }) = before.last()
            && all_said
            && *told != current
        {
            faults.push(format!("{stage:?} with {told:?} was told, {current:?} serves"));
        }
        faults.extend(leaked(dir.path(), &device).into_iter().map(|leak| format!("leaked: {leak}")));

        let ordered = device.updater.update(&slot(), release("5.0.0"), Default::default()).unwrap();
        let updated = ended(ordered).await;
        if !matches!(updated, Progress::Successful { .. }) {
            faults.push(format!("the next update: {updated:?}"));
        }
        device.until_idle().await;
        match whole(dir.path(), &self.fleet, &device) {
            Ok(Some(bundle)) if bundle.release == release("5.0.0") => {}
            other => faults.push(format!("after the next update: {other:?}")),
        }
        let links = slots::read(&folders(dir.path()), &slot()).map(|(links, _)| links.previous);
        match links {
            Ok(previous) if previous == current => {}
            other => faults.push(format!("previous after the next update: {other:?}")),
        }
        faults.extend(leaked(dir.path(), &device).into_iter().map(|leak| format!("leaked at last: {leak}")));
        device.stop().await;
        faults
    }
}

/// Ids of the deployments that have ended on a device that does not run.
fn history(state: &Path) -> BTreeSet<DeploymentId> {
    let store = crate::sys::store::Store::open(&state.join("store")).unwrap().store;
    let ended = crate::update::journal::Journal::new(&store).history().unwrap();
    ended.into_iter().map(|ended| ended.deployment.id).collect()
}

/// What is current, where the links, what serves and every byte of it are as they must be.
pub(super) fn whole(state: &Path, fleet: &Fleet, device: &Device) -> Result<Option<BundleRef>, String> {
    let folders = folders(state);
    let (links, wrong) = slots::read(&folders, &slot()).map_err(|reason| reason.to_string())?;
    if !wrong.is_empty() {
        return Err(format!("links: {wrong:?}"));
    }
    for bundle in [&links.current, &links.previous].into_iter().flatten() {
        let signed = fleet.signed.get(&bundle.digest).ok_or(format!("{bundle:?} was never published"))?;
        stage::check_folder(&folders.model(&bundle.digest), signed).map_err(|reason| reason.to_string())?;
    }
    if links.current.is_some() && links.current == links.previous {
        return Err("current and previous are the same".to_owned());
    }
    let serving = device.children.serving();
    if serving != links.current {
        return Err(format!("{serving:?} serves, {:?} is linked", links.current));
    }
    Ok(links.current)
}

/// What is wrong with what was told of how deployments ended.
fn reported(device: &Device, before: &[&Told], words: &Words, known: &BTreeSet<DeploymentId>) -> Vec<String> {
    let mut faults = Vec::new();
    let recorded: BTreeMap<DeploymentId, Stage> = device
        .history()
        .into_iter()
        .map(|ended| (ended.deployment.id.clone(), ended.deployment.stage()))
        .collect();
    if recorded.values().any(|stage| !stage.is_final()) {
        faults.push(format!("in the history: {recorded:?}"));
    }
    if let Some(lost) = known.iter().find(|id| !recorded.contains_key(*id)) {
        faults.push(format!("{lost} is no more in the history"));
    }
    let mut told: BTreeMap<DeploymentId, Vec<Stage>> = BTreeMap::new();
    let words = words.lock().unwrap().clone();
    for word in before.iter().copied().chain(words.iter().map(|(_, told)| told)) {
        if let Told::Ended { id, stage, .. } = word {
            told.entry(id.clone()).or_default().push(*stage);
        }
    }
    for (id, stages) in &told {
        if stages.len() > 1 {
            faults.push(format!("{id} was told to have ended more than once: {stages:?}"));
        }
        if recorded.get(id) != stages.first() {
            faults.push(format!("{id} was told to be {stages:?}, recorded is {:?}", recorded.get(id)));
        }
    }
    // What ended and could not be told any more is what the agent shows now.
    let shown = device.updater.state(&slot()).unwrap().deployment;
    for (id, stage) in &recorded {
        let is_shown = shown.as_ref().is_some_and(|shown| shown.id == *id && shown.stage == *stage);
        if !known.contains(id) && !told.contains_key(id) && !is_shown {
            faults.push(format!("{id} has ended as {stage:?} and nobody was told"));
        }
    }
    faults
}

/// What lies on the disk that nothing needs.
pub(super) fn leaked(state: &Path, device: &Device) -> Vec<String> {
    let folders = folders(state);
    let (links, _) = slots::read(&folders, &slot()).unwrap();
    let needed: BTreeSet<String> = [links.current, links.previous]
        .into_iter()
        .flatten()
        .map(|bundle| bundle.digest.to_string())
        .collect();
    let mut leaked = names(&folders.models);
    leaked.retain(|name| !needed.contains(name));
    let last = device.history().pop();
    let keeps_parts =
        last.and_then(|last| last.deployment.reason().map(|reason| reason.code)).is_some_and(|code| {
            use ReasonCode::*;
            matches!(code, RepositoryUnreachable | Aborted | Superseded)
        });
    if !keeps_parts {
        leaked.extend(names(&folders.downloads).into_iter().map(|name| format!("downloads/{name}")));
    }
    leaked.extend(names(&folders.engines).into_iter().map(|name| format!("engines/{name}")));
    temporaries(state, &mut leaked);
    leaked
}

/// The folders of a device as they are: nothing is made or tidied up.
fn folders(state: &Path) -> Folders {
    let [models, slots, downloads, engines] =
        ["models", "slots", "downloads", "engines"].map(|name| state.join(name));
    Folders { models, slots, downloads, engines }
}

fn names(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// All temporary names below a folder.
fn temporaries(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap().to_string_lossy().starts_with(TEMPORARY) {
            found.push(path.display().to_string());
        } else if path.is_dir() && !path.is_symlink() {
            temporaries(&path, found);
        }
    }
}

#[tokio::test]
async fn a_cut_at_every_operation_of_a_first_install_is_survived() {
    survives(&scenario::FIRST).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_an_update_is_survived() {
    survives(&scenario::UPDATE).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_a_refused_update_is_survived() {
    survives(&scenario::REFUSED).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_an_update_that_is_rolled_back_is_survived() {
    survives(&scenario::ROLLED_BACK).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_a_rollback_is_survived() {
    survives(&scenario::ROLLBACK).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_a_rollback_of_a_rollback_is_survived() {
    survives(&scenario::ROLLBACK_TWICE).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_a_superseded_update_is_survived() {
    survives(&scenario::SUPERSEDED).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_an_update_aborted_on_trial_is_survived() {
    survives(&scenario::ABORTED_TRIAL).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_an_update_aborted_in_probation_is_survived() {
    survives(&scenario::ABORTED_PROBATION).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_garbage_collection_is_survived() {
    // It is long, and little of it differs from the others: fewer seeds.
    told(&scenario::GARBAGE, sweep(&scenario::GARBAGE, &LEFT[..5], |_| ()).await);
}

#[tokio::test]
async fn a_cut_at_every_operation_of_an_update_from_a_file_is_survived() {
    survives(&scenario::FROM_FILE).await;
}

/// The web server breaks off once: the next try goes on where it was, also where the power failed between them.
#[tokio::test]
async fn a_cut_at_every_operation_of_half_a_download_and_the_other_half_is_survived() {
    let serve = |fleet: &Fleet| {
        let server = Server::start(fleet.repository());
        server.break_off();
        server
    };
    let (lab, record, words) = Lab::play(&scenario::HALF, Some(serve)).await;
    let written = |operation: &&Operation| operation.what.starts_with("write to downloads");
    assert!(record.operations.iter().filter(written).count() > 4, "the model came in pieces");
    let left = [Left::All, Left::Synced, Left::Names, Left::Zeroes, Left::Random(0)];
    told(&scenario::HALF, lab.cut_all(&scenario::HALF, &left, &record, &words).await);
}

/// While the agent recovers from a cut, the power fails once more.
#[tokio::test]
async fn a_cut_while_the_agent_recovers_from_a_cut_is_survived() {
    let scenario = &Scenario { name: "cut-again", ..scenario::UPDATE };
    let (lab, record, words) = Lab::play(scenario, None).await;
    let mut all = Sweep { operations: 0, cuts: 0, disks: 0, faults: Vec::new() };
    for count in (0..=record.operations.len()).step_by(AGAIN) {
        let dir = super::folder();
        after(&record, count, Left::Synced).write_to(dir.path());
        let recorder = Arc::new(Recorder::at(dir.path()));
        let (more, note) = note(Some(recorder.clone()));
        let mut device = lab.start(dir.path(), scenario.flaws_after, note).await.unwrap();
        device.until_recovered().await;
        device.stop().await;
        // What was told before the first cut was told for good.
        let before = words.iter().filter(|(at, _)| *at <= count).map(|(_, told)| (0, told.clone()));
        let words: Vec<_> = before.chain(more.lock().unwrap().iter().cloned()).collect();
        let once = lab.cut_all(scenario, &[Left::Synced, Left::Random(0)], &recorder.record(), &words).await;
        all.operations += once.operations;
        all.cuts += once.cuts;
        all.disks += once.disks;
        all.faults.extend(once.faults.into_iter().map(|fault| format!("first at {count}, then {fault}")));
    }
    told(scenario, all);
}

/// Takes the syncs of files, or of folders, out of a record.
fn without_syncs_of(record: &mut Record, folders: bool) {
    let mut kinds: Vec<bool> = record.inodes.iter().map(|kind| matches!(kind, Kind::Folder(_))).collect();
    for operation in &mut record.operations {
        for effect in &operation.effects {
            if let Effect::New(_, kind) = effect {
                kinds.push(matches!(kind, Kind::Folder(_)));
            }
        }
        operation
            .effects
            .retain(|effect| !matches!(effect, Effect::Synced(inode) if kinds[*inode] == folders));
    }
}

/// The sweep itself is put to the test: what it must find, it finds.
#[tokio::test]
async fn without_the_syncs_of_files_or_folders_or_the_database_an_update_does_not_survive() {
    let lost = [Left::Synced, Left::Names];
    let unsynced_files =
        sweep(&scenario::UPDATE, &lost, |record| without_syncs_of(record, false)).await.faults;
    assert!(
        unsynced_files.iter().any(|fault| fault.contains("what was seen went back")),
        "{unsynced_files:?}"
    );
    assert!(unsynced_files.iter().any(|fault| fault.contains("links: ")), "{unsynced_files:?}");
    let unsynced_folders =
        sweep(&scenario::UPDATE, &lost, |record| without_syncs_of(record, true)).await.faults;
    assert!(unsynced_folders.iter().any(|fault| fault.contains("was told")), "{unsynced_folders:?}");
    let unsynced_database = sweep(&scenario::UPDATE, &lost, |record| {
        for operation in &mut record.operations {
            operation.effects.retain(|effect| !matches!(effect, Effect::Database(..)));
        }
    });
    let unsynced_database = unsynced_database.await.faults;
    assert!(
        unsynced_database.iter().any(|fault| fault.contains("recorded is None")),
        "{unsynced_database:?}"
    );
}
