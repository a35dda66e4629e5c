//! A power cut at every operation of each scenario, and the recovery from every disk that it may leave.
//!
//! A scenario is played once, and every operation recorded; the disk after a cut is made from the first of
//! them. Of each cut there are several disks: with all that was written, with only what was synced, and with
//! any part of the rest. Disks that are the same are recovered once. The agent starts on each by itself, as
//! after a boot, and then gets one more update.
//!
//! The store's own file is not torn here: see `sys::durable::recorded`.

use super::device::{Device, Floors, Note, Told, slot};
use super::fleet::{Fleet, release};
use super::scenario::{self, Scenario, ended};
use crate::domain::DeploymentId;
use crate::domain::command::Progress;
use crate::domain::deployment::{BundleRef, Stage};
use crate::domain::reason::ReasonCode;
use crate::sys::durable::TEMPORARY;
use crate::sys::durable::aftermath::{Disk, Left, after};
use crate::sys::durable::recorded::{Effect, Kind, Record, Recorder};
use crate::update::Folders;
use crate::update::slots;
use crate::update::stage;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What each cut leaves.
const LEFT: [Left; 7] = [
    Left::All,
    Left::Synced,
    Left::Names,
    Left::Random(0),
    Left::Random(1),
    Left::Random(2),
    Left::Random(3),
];

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
    disks: usize,
    faults: Vec<String>,
}

/// A scenario must survive all of them.
async fn survives(scenario: &Scenario) {
    let Sweep { operations, disks, faults } = sweep(scenario, &LEFT, |_| ()).await;
    let told = faults.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join("\n");
    assert!(faults.is_empty(), "{} faults\n{told}", faults.len());
    // One cut comes before the first operation.
    let line = format!("{} {operations} {} {disks} {disks}", scenario.name, operations + 1);
    super::tell("cut", scenario.name, &line);
}

/// Cuts the power at every operation. `plant` changes the record first, as if the code had a bug.
async fn sweep(scenario: &Scenario, left: &[Left], plant: impl Fn(&mut Record)) -> Sweep {
    let (fleet, state) = scenario.prepare().await;
    let known = history(state.path());
    let recorder = Arc::new(Recorder::at(state.path()));
    let (words, note) = note(Some(recorder.clone()));
    let mut device = Device::start(state.path(), &fleet, None, scenario.flaws, note).await.unwrap();
    scenario.play(&mut device, &fleet).await;
    device.stop().await;
    let mut record = recorder.record();
    let cuts = record.operations.len();
    let real = after(&recorder.look(), 0, Left::All);
    assert!(after(&record, cuts, Left::All).holds_the_same(&real), "something was written past the layer");
    let words = words.lock().unwrap().clone();

    plant(&mut record);
    let (mut faults, mut tried, mut seen) = (Vec::new(), 0, HashSet::new());
    for count in 0..=cuts {
        let before: Vec<&Told> = words.iter().filter(|(at, _)| *at <= count).map(|(_, told)| told).collect();
        let all_said = before.len() == words.len();
        for &left in left {
            let disk = after(&record, count, left);
            if !seen.insert((disk.clone(), before.len())) {
                continue;
            }
            tried += 1;
            for fault in recover(scenario, &fleet, &disk, &before, all_said, &known).await {
                let last = count.checked_sub(1).map_or("the start", |last| &record.operations[last].what);
                faults.push(format!(
                    "{}: cut {count} of {cuts}, after {last}, {left:?}: {fault}",
                    scenario.name
                ));
            }
        }
    }
    Sweep { operations: cuts, disks: tried, faults }
}

/// Ids of the deployments that have ended on a device that does not run.
fn history(state: &Path) -> BTreeSet<DeploymentId> {
    let store = crate::sys::store::Store::open(&state.join("store")).unwrap().store;
    let ended = crate::update::journal::Journal::new(&store).history().unwrap();
    ended.into_iter().map(|ended| ended.deployment.id).collect()
}

/// Starts the agent on a disk, lets it finish, and tells what is wrong then.
async fn recover(
    scenario: &Scenario,
    fleet: &Fleet,
    disk: &Disk,
    before: &[&Told],
    all_said: bool,
    known: &BTreeSet<DeploymentId>,
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
    let started = Device::start(dir.path(), fleet, None, scenario.flaws_after, note).await;
    let mut device = match started {
        Ok(device) => device,
        Err(reason) => {
            faults.push(format!("the agent does not start: {reason}"));
            return faults;
        }
    };
    faults.extend(device.lost.take());
    device.until_recovered().await;

    let may = |bundle: &BundleRef| scenario.serves.iter().any(|version| bundle.release == release(version));
    let current = match whole(dir.path(), fleet, &device) {
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
    faults.extend(reported(&device, before, &words, known));
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
    match whole(dir.path(), fleet, &device) {
        Ok(Some(bundle)) if bundle.release == release("5.0.0") => {}
        other => faults.push(format!("after the next update: {other:?}")),
    }
    faults.extend(leaked(dir.path(), &device).into_iter().map(|leak| format!("leaked at last: {leak}")));
    device.stop().await;
    faults
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
    survives(&scenario::GARBAGE).await;
}

#[tokio::test]
async fn a_cut_at_every_operation_of_an_update_from_a_file_is_survived() {
    survives(&scenario::FROM_FILE).await;
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
