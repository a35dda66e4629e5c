//! A disk that the kernel makes read-only under the running agent, as ext4 does after an error; with the real
//! file system on a loop device. What can be done is done, and after the repair all is as before.

use crate::support::device::{Device, Options, Repository, release};
use crate::support::mosquitto::Mosquitto;
use edgewarden::domain::ReasonCode;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A small ext4 under a device's state folder; gone with the value.
struct Ext4 {
    image: PathBuf,
    at: PathBuf,
}

impl Ext4 {
    /// `None`, told, where this user may not mount it, or the kernel plays no errors.
    fn under(device: &Device, test: &str) -> Option<Self> {
        let (image, at) = (device.path("disk"), device.path("state"));
        std::fs::create_dir(&at).unwrap();
        std::fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        let disk = Self { image, at };
        let made = run("mkfs.ext4", &["-q".as_ref(), disk.image.as_ref()]) && disk.mount();
        if made && disk.trigger().is_some_and(|trigger| trigger.exists()) {
            return Some(disk);
        }
        println!("skipped {test}: this user may not mount an ext4, or this kernel plays no errors of one");
        None
    }

    fn mount(&self) -> bool {
        let options = ["-o".as_ref(), "loop,errors=remount-ro".as_ref()];
        run("mount", &[options[0], options[1], self.image.as_ref(), self.at.as_ref()])
    }

    /// Where the kernel takes an order to find an error.
    fn trigger(&self) -> Option<PathBuf> {
        let mounts = std::fs::read_to_string("/proc/mounts").ok()?;
        let at = self.at.to_str()?;
        let source = mounts.lines().find_map(|line| {
            let mut fields = line.split(' ');
            let source = fields.next()?;
            (fields.next()? == at).then_some(source)
        })?;
        Some(Path::new("/sys/fs/ext4").join(Path::new(source).file_name()?).join("trigger_fs_error"))
    }

    fn repair(&self) {
        assert!(run("umount", &[self.at.as_ref()]), "unmount it");
        // It says 1 where it has mended something.
        run("e2fsck", &["-fp".as_ref(), self.image.as_ref()]);
        assert!(self.mount(), "mount it again");
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        run("umount", &["--lazy".as_ref(), self.at.as_ref()]);
    }
}

fn run(program: &str, arguments: &[&std::ffi::OsStr]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

#[test]
fn a_disk_that_turns_read_only_refuses_the_update_and_the_model_serves_on() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let options = Options::new(&broker, &repository).set("update.disk_reserve", 0);
    let mut device = Device::new(options);
    let test = "a_disk_that_turns_read_only_refuses_the_update_and_the_model_serves_on";
    let Some(disk) = Ext4::under(&device, test) else { return };
    device.start();
    device.update(&release(1)).unwrap();
    device.until_frames(3);

    std::fs::write(disk.trigger().unwrap(), "an error, as the test wants it").unwrap();
    for _ in 0..2 {
        let reason = device.update(&release(2)).unwrap_err();
        assert_eq!(reason.code, ReasonCode::Internal, "{reason}");
        let told = reason.detail.to_lowercase();
        assert!(told.contains("read-only"), "{reason}");
        assert!(!told.contains('\n'), "{reason}");
        println!("{reason}");
        device.until_frames(3);
    }
    assert_eq!(device.status().slots[0].current.as_ref().unwrap().release.to_string(), release(1));

    device.stop();
    disk.repair();
    device.forget();
    device.start();
    device.until_frames(3);
    device.update(&release(2)).unwrap();
    assert_eq!(device.until("a state", |heard| heard.current()), release(2));
    drop(device);
}
