//! Bundle files that the command line can read and the agent cannot: a unit that is closed sees neither
//! `/home` nor the `/tmp` of others.

use crate::support::device::{Device, Options, Repository, release};
use crate::support::{Edgewarden, Ended};
use std::fs::File;
use std::path::Path;
use std::process::Command;

/// A command that runs the daemon where this folder is another one, with a file of the same name in it.
fn closed_in(folder: &Path, name: &str) -> Command {
    let plain = Edgewarden::command();
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c"]);
    command.arg("mount -t tmpfs tmpfs \"$0\" && echo other > \"$0/$1\" && shift && exec \"$@\"");
    command.arg(folder).arg(name).arg(Edgewarden::path()).stdin(std::process::Stdio::null());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

fn may_unshare() -> bool {
    let tried = Command::new("unshare").args(["--mount", "--propagation", "private", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

fn export(repository: &Repository, release: &str, file: &Path) {
    let (folder, file) = (repository.folder().display().to_string(), file.display().to_string());
    let ended = Edgewarden::run(["repo", "export", &folder, release, "--output", &file]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

#[test]
fn a_file_that_the_agent_cannot_see_is_handed_over_by_the_command_line() {
    if !may_unshare() {
        println!("skipped a_file_that_the_agent_cannot_see: this user may make no mount namespace");
        return;
    }
    let repository = Repository::with(&["v1", "v2", "v5"]);
    let home = tempfile::tempdir().unwrap();
    let (one, two) = (home.path().join("one.bundle"), home.path().join("two.bundle"));
    export(&repository, &release(1), &one);
    export(&repository, &release(2), &two);
    let options = Options::default().repository(&repository).set("update.max_bundle", "1MiB");
    let mut device = Device::new(options);
    let log = File::create(device.path("agent.log")).unwrap();
    device.start_by(closed_in(home.path(), "two.bundle"), log);
    let install = |device: &Device, file: &Path| -> Ended { device.cli(["install", file.to_str().unwrap()]) };
    let current = |device: &Device| device.status().slots[0].current.as_ref().unwrap().release.to_string();
    device.status();

    // One is not there for the agent, the other is another file.
    for (file, release) in [(&one, release(1)), (&two, release(2))] {
        let ended = install(&device, file);
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert_eq!(current(&device), release);
    }
    // It is verified like any other, and the reason names it.
    export(&repository, &release(5), &one);
    let mut bytes = std::fs::read(&one).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&one, &bytes).unwrap();
    let refused = install(&device, &one);
    assert!(refused.code == Some(2) && refused.stderr.contains(&release(5)), "{refused:?}");
    std::fs::write(&one, "no bundle").unwrap();
    let refused = install(&device, &one);
    assert!(refused.code == Some(2) && refused.stderr.contains("one.bundle"), "{refused:?}");
    // Bounded before anything is sent.
    File::create(&one).unwrap().set_len(100 << 20).unwrap();
    let refused = install(&device, &one);
    assert!(refused.code == Some(1) && refused.stderr.contains("update.max_bundle"), "{refused:?}");
    let refused = install(&device, home.path());
    assert!(refused.code == Some(1) && refused.stderr.contains("is no file"), "{refused:?}");

    assert_eq!(current(&device), release(2));
    let left = std::fs::read_dir(device.path("state/handed-over")).unwrap().count();
    assert_eq!(left, 0, "nothing of it stays");
    assert!(device.stop().success());
}
