//! A full disk: one clear line with the remedy, the model that serves goes on, and with room again so does
//! everything else, by itself.

use super::commands::{appoint, is_paused, order, pause};
use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::operators::Person;
use crate::support::{Edgewarden, wait_until};
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::{HealthReport, PipelineState, ProblemCode};
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small disk under a device's state folder; gone with the value.
pub struct Disk(PathBuf);

impl Disk {
    /// `None`, told, where this user may not mount.
    pub fn under(device: &Device, test: &str) -> Option<Self> {
        let state = device.path("state");
        std::fs::create_dir(&state).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(&state)
            .output()
            .is_ok_and(|output| output.status.success());
        if !mounted {
            println!("skipped {test}: this user may not mount");
            return None;
        }
        Some(Self(state))
    }

    fn free(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        stat.f_bavail * stat.f_frsize
    }

    /// Fills it but for so many bytes.
    fn leave(&self, bytes: u64) {
        let size = usize::try_from(self.free().saturating_sub(bytes)).unwrap();
        std::fs::write(self.0.join("filler"), vec![1; size]).unwrap();
    }

    /// Fills it to the last byte.
    pub fn fill(&self) {
        let mut rest = File::create(self.0.join("rest")).unwrap();
        while rest.write(&[1; 512]).is_ok_and(|written| written > 0) {}
    }

    pub fn make_room(&self) {
        for file in ["filler", "rest"] {
            let _ = std::fs::remove_file(self.0.join(file));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn options(broker: &Mosquitto, repository: &Repository) -> Options {
    Options::new(broker, repository).set("update.disk_reserve", 0)
}

/// A device that obeys Anna in these roles and has been started again on a disk without room; `None`, told, where
/// this user may not mount.
pub fn obeying_without_room(
    broker: &Mosquitto,
    repository: &mut Repository,
    roles: &[&str],
    test: &str,
) -> Option<(Device, Disk, Person)> {
    let options = super::commands::options(broker, repository).set("update.disk_reserve", 0);
    let mut device = Device::new(options);
    let disk = Disk::under(&device, test)?;
    device.start();
    device.update(&release(1)).unwrap();
    let anna = Person::new("anna", 1);
    appoint(&device, repository, &[anna.entry(roles)]);
    device.kill();
    disk.fill();
    device.forget();
    device.start();
    device.until_frames(3);
    Some((device, disk, anna))
}

fn tells_full(health: &HealthReport, state: &Path) -> bool {
    let state = state.display().to_string();
    health.problems.iter().any(|problem| {
        problem.code == ProblemCode::DiskLow
            && ["is full", "make room", &state].iter().all(|words| problem.detail.contains(words))
    })
}

fn current(device: &Device) -> String {
    device.status().slots[0].current.as_ref().unwrap().release.to_string()
}

#[test]
fn a_full_disk_refuses_the_update_and_loses_nothing() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::new(options(&broker, &repository));
    let Some(disk) = Disk::under(&device, "a_full_disk_refuses_the_update_and_loses_nothing") else { return };
    device.start();
    device.update(&release(1)).unwrap();
    device.until_frames(3);
    // Room for the journal and not for the model, which has 270 kB.
    disk.leave(200_000);
    let reason = device.update(&release(2)).unwrap_err();
    assert_eq!(reason.code, ReasonCode::DiskFull, "{reason}");
    assert!(reason.detail.contains("make room"), "{reason}");
    device.until_frames(3);
    assert_eq!(current(&device), release(1));

    // A power cut now: the good model serves all the same, and the device says what ails it.
    device.kill();
    disk.fill();
    device.forget();
    device.start();
    device.until_frames(3);
    device
        .until("the word of the full disk", |heard| tells_full(heard.health.last()?, &disk.0).then_some(()));
    let reason = device.update(&release(2)).unwrap_err();
    assert_eq!(reason.code, ReasonCode::DiskFull, "{reason}");

    // With room again it goes on by itself, in the same process, with what it knew before.
    let agent = device.pid();
    disk.make_room();
    device.until("the end of it", |heard| (!tells_full(heard.health.last()?, &disk.0)).then_some(()));
    device.update(&release(2)).unwrap();
    assert_eq!((current(&device), device.pid()), (release(2), agent));
    assert!(device.stop().success());
    device.start();
    device.until_frames(3);
    assert_eq!(current(&device), release(2));
}

#[test]
fn a_disk_that_fills_up_under_the_running_agent_is_told_and_it_goes_on_with_room_again() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::new(options(&broker, &repository));
    let test = "a_disk_that_fills_up_under_the_running_agent_is_told_and_it_goes_on_with_room_again";
    let Some(disk) = Disk::under(&device, test) else { return };
    device.start();
    for number in [1, 2] {
        device.update(&release(number)).unwrap();
    }
    let agent = device.pid();
    for _ in 0..3 {
        disk.fill();
        let other = if current(&device) == release(1) { release(2) } else { release(1) };
        let is_full =
            || device.heard.lock().unwrap().health.last().is_some_and(|one| tells_full(one, &disk.0));
        // The journal goes on in the pieces of its file that it has, so this takes some of them. Each is
        // answered, also those that the store does not take.
        let full = (0..1000).any(|_| {
            let reason = device.update(&other).unwrap_err();
            assert_eq!(reason.code, ReasonCode::DiskFull, "{reason}");
            is_full()
        });
        assert!(full, "the journal is full at some time");
        for _ in 0..3 {
            let reason = device.update(&other).unwrap_err();
            assert!(reason.code == ReasonCode::DiskFull && reason.detail.contains("store"), "{reason}");
        }
        device.until_frames(3);

        disk.make_room();
        device.until("the end of it", |heard| (!tells_full(heard.health.last()?, &disk.0)).then_some(()));
        for number in [2, 1] {
            device.update(&release(number)).unwrap();
        }
    }
    device.until_frames(3);
    assert_eq!(device.pid(), agent);
    assert!(device.stop().success());
    device.start();
    device.until_frames(3);
    assert_eq!(current(&device), release(1));
}

/// A bad model must not stay for want of room, also where the journal can take nothing any more.
#[test]
fn a_rollback_works_on_a_full_disk() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::new(options(&broker, &repository));
    let Some(disk) = Disk::under(&device, "a_rollback_works_on_a_full_disk") else { return };
    device.start();
    for number in [1, 2] {
        device.update(&release(number)).unwrap();
    }
    disk.fill();
    let full = (0..1000).any(|_| {
        let reason = device.update(&release(1)).unwrap_err();
        assert_eq!(reason.code, ReasonCode::DiskFull, "{reason}");
        reason.detail.contains("store")
    });
    assert!(full, "the journal takes nothing any more");
    let rollback = || device.command("rollback", serde_json::json!({ "slot": SLOT }));
    assert_eq!(rollback().unwrap()["release"], release(1).as_str());
    assert_eq!(current(&device), release(1));
    device.until_frames(3);
    // And back again, as somebody may who found that it was not the model.
    assert_eq!(rollback().unwrap()["release"], release(2).as_str());
    assert_eq!(rollback().unwrap()["release"], release(1).as_str());

    // The links alone tell the next start.
    device.kill();
    device.forget();
    device.start();
    device.until_frames(3);
    assert_eq!(current(&device), release(1));
    disk.make_room();
    device.until("the end of it", |heard| (!tells_full(heard.health.last()?, &disk.0)).then_some(()));
    device.update(&release(2)).unwrap();
    assert_eq!(current(&device), release(2));
}

#[test]
fn a_rollback_on_a_full_disk_is_recorded_when_there_is_room() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::new(options(&broker, &repository));
    let Some(disk) = Disk::under(&device, "a_rollback_on_a_full_disk_is_recorded_when_there_is_room") else {
        return;
    };
    device.start();
    for number in [1, 2] {
        device.update(&release(number)).unwrap();
    }
    disk.fill();
    while !device.update(&release(1)).unwrap_err().detail.contains("store") {}
    device.command("rollback", serde_json::json!({ "slot": SLOT })).unwrap();
    disk.make_room();
    wait_until("the record", PATIENCE, || device.log().contains("is recorded").then_some(()));
    device.stop();
    let store = edgewarden::sys::store::Store::open(&disk.0.join("store")).unwrap().store;
    let history = edgewarden::update::journal::Journal::new(&store).history().unwrap();
    let last = &history.last().unwrap().deployment;
    assert_eq!((last.release.to_string(), last.stage()), (release(1), Stage::Committed));
}

/// Where standard error is a file on the full disk, each line that is to be logged fails.
#[test]
fn a_log_that_cannot_be_written_ends_nothing() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let mut device = Device::new(Options::new(&broker, &repository));
    device.start_by(Edgewarden::command(), File::options().write(true).open("/dev/full").unwrap());
    for number in [1, 2] {
        device.update(&release(number)).unwrap();
    }
    let agent = device.pid();
    crate::support::device::signal(device.child("infer"), rustix::process::Signal::KILL);
    device.until_frames(3);
    wait_until("a pipeline that runs", PATIENCE, || {
        (device.status().health.pipelines[0].state == PipelineState::Running).then_some(())
    });
    assert_eq!(device.pid(), agent);
    assert!(device.stop().success());
}

#[test]
fn a_signed_command_whose_number_cannot_be_remembered_is_not_run() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let test = "a_signed_command_whose_number_cannot_be_remembered_is_not_run";
    let Some((device, disk, anna)) = obeying_without_room(&broker, &mut repository, &["operate"], test)
    else {
        return;
    };
    let reason = order(&device, &anna, 1, pause()).unwrap_err();
    assert_eq!(reason.code, ReasonCode::DiskFull, "{reason}");
    assert!(!is_paused(&device));
    disk.make_room();
    // The same again: its number was not used up.
    wait_until("the store is back", PATIENCE, || order(&device, &anna, 1, pause()).ok());
    assert!(is_paused(&device));
}
