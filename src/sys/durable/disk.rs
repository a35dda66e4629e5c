//! What a disk can be told: one operation at a time, nothing of it durable until it is synced.
//!
//! Everything that must survive a power cut is written through this trait, so that a test can put a disk of
//! its own in the place of the real one: it records each operation, lets one fail, and shows what a power cut
//! at any of them could leave behind (`recorded`). Nothing is read through it: what was written can be read
//! in the usual ways.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt, fchown};
use std::path::Path;

/// The operations that change a disk. Each is as the system call of that name, and as little durable.
pub trait Disk: Send + Sync {
    /// Makes an empty file, open for writing; a file that is there is an error.
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn OpenFile>>;
    /// Opens a file for writing at its front, made where it is missing; what it holds stays.
    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Makes a file's content durable.
    fn sync_file(&self, path: &Path) -> io::Result<()>;
    /// Makes the names in a folder durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes durable what a database wrote by itself into its folder; `file` is the one that holds it.
    fn sync_database(&self, folder: &Path, file: &File) -> io::Result<()>;
    /// Renames; a file or an empty folder at `to` is replaced.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Lets two names change places.
    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()>;
    /// Makes a symbolic link at `path`.
    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()>;
    /// Gives the file `from` a second name.
    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Makes a folder.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Sets who may do what with a file or folder.
    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()>;
    /// Removes a file or link.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it. Links in it are not followed, also where somebody exchanges
    /// them meanwhile.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;
}

/// A file that is open for writing.
pub trait OpenFile: Write + Seek + Send {
    /// Cuts it or fills it up with zeroes to so many bytes.
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// Makes its content durable.
    fn sync_all(&mut self) -> io::Result<()>;
    /// Sets who may do what with it.
    fn set_mode(&mut self, mode: u32) -> io::Result<()>;
    /// Gives it to another user and group.
    fn give_to(&mut self, user: u32, group: u32) -> io::Result<()>;
}

/// The disks of this machine, as the system has them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Real;

impl Disk for Real {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(OpenOptions::new().create(true).truncate(false).write(true).open(path)?))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn sync_database(&self, _folder: &Path, file: &File) -> io::Result<()> {
        file.sync_all()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        Ok(renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE)?)
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        std::os::unix::fs::symlink(target, path)
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::hard_link(from, to)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }
}

impl OpenFile for File {
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }

    fn sync_all(&mut self) -> io::Result<()> {
        File::sync_all(self)
    }

    fn set_mode(&mut self, mode: u32) -> io::Result<()> {
        self.set_permissions(fs::Permissions::from_mode(mode))
    }

    fn give_to(&mut self, user: u32, group: u32) -> io::Result<()> {
        fchown(&*self, Some(user), Some(group))
    }
}
