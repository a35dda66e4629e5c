//! A disk for tests, in the place of the real one below one folder: it records every operation with its data,
//! and fails where it is told to.
//!
//! What is written below the folder goes to the real disk as well, so that it can be read in the usual ways.
//! The record has inodes and names apart, as a disk does; `aftermath` makes of it what a power cut could leave
//! behind. Modes and owners are not in it.
//!
//! The database writes its files by itself: here they count as durable at each of its syncs, as a whole, and
//! what it wrote since then is lost in a cut. How its own file may be torn is not shown.

use super::disk::{Disk, OpenFile, Real};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

/// Number of a file, link or folder; the folder itself is 0.
pub(crate) type Inode = usize;

/// The files of a database at one of its syncs, by their paths in its folder. Each sync is another one.
#[derive(Debug, Clone)]
pub(crate) struct Database(pub(crate) Arc<BTreeMap<PathBuf, Vec<u8>>>);

impl PartialEq for Database {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Database {}

impl std::hash::Hash for Database {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

/// A change of a file's content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    Write { at: u64, bytes: Arc<[u8]> },
    SetLen(u64),
}

/// What an operation did.
#[derive(Debug, Clone)]
pub(crate) enum Effect {
    /// There is a new inode, without a name yet.
    New(Inode, Kind),
    /// Names of one folder changed, all of them or none.
    Names(Inode, Vec<(OsString, Option<Inode>)>),
    Content(Inode, Change),
    /// What was written to a file, or the names in a folder, is durable.
    Synced(Inode),
    Database(PathBuf, Database),
}

/// What an inode is, as it is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File(Vec<u8>),
    Folder(BTreeMap<OsString, Inode>),
    Link(PathBuf),
}

/// One operation.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    /// Such as "rename models/.tmp-1-1 to models/0a…".
    pub(crate) what: String,
    pub(crate) effects: Vec<Effect>,
}

/// A disk at the beginning, and what was done to it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Record {
    pub(crate) inodes: Vec<Kind>,
    pub(crate) database: Option<(PathBuf, Database)>,
    pub(crate) operations: Vec<Operation>,
}

/// From which operation on the disk fails, and how.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// Number of the first operation that fails.
    pub(crate) at: usize,
    /// The system's number for the error.
    pub(crate) error: rustix::io::Errno,
    /// The operations after it fail, too, until the disk is mended.
    pub(crate) lasting: bool,
}

/// What an operation asks of the disk, for faults that do not meet all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needs {
    /// Room on the disk.
    Room,
    /// Another name for what is there, or one less.
    Change,
    /// Nothing new.
    Sync,
}

impl Fault {
    fn meets(&self, needs: Needs) -> bool {
        use rustix::io::Errno;
        match self.error {
            Errno::NOSPC | Errno::DQUOT => needs == Needs::Room,
            Errno::ROFS => needs != Needs::Sync,
            _ => true,
        }
    }
}

/// The disk of a folder. Dropped, the real one is there again.
pub(crate) struct Recorder {
    root: PathBuf,
    shared: Arc<Shared>,
}

struct Shared {
    root: PathBuf,
    state: Mutex<State>,
}

struct State {
    /// As the program sees it.
    inodes: Vec<Kind>,
    record: Record,
    fault: Option<Fault>,
    /// An operation has failed as told.
    met: bool,
}

static RECORDERS: RwLock<Vec<(PathBuf, Arc<Shared>)>> = RwLock::new(Vec::new());

/// The disk that holds `path`.
pub(super) fn disk(path: &Path) -> Arc<dyn Disk> {
    let recorders = RECORDERS.read().unwrap();
    match recorders.iter().find(|(root, _)| path.starts_with(root)) {
        Some((_, shared)) => Arc::new(Recorded(shared.clone())),
        None => Arc::new(Real),
    }
}

/// Names at the top of the folder that the database and locks have for themselves.
fn is_foreign(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with("store") || name == "lock"
}

impl Recorder {
    /// Takes the place of the disk below `root`; what is there is durable.
    pub(crate) fn at(root: &Path) -> Self {
        let mut record = Record::default();
        take(root, &mut record.inodes, true);
        let store = root.join("store");
        if store.is_dir() {
            record.database = Some(("store".into(), database(&store)));
        }
        let state = State { inodes: record.inodes.clone(), record, fault: None, met: false };
        let shared = Arc::new(Shared { root: root.to_owned(), state: Mutex::new(state) });
        RECORDERS.write().unwrap().push((root.to_owned(), shared.clone()));
        Self { root: root.to_owned(), shared }
    }

    /// What is there now, as a disk at the beginning of a record.
    pub(crate) fn look(&self) -> Record {
        let mut record = Record::default();
        take(&self.root, &mut record.inodes, true);
        record
    }

    /// Operations so far.
    pub(crate) fn count(&self) -> usize {
        self.shared.state().record.operations.len()
    }

    /// All that was done so far.
    pub(crate) fn record(&self) -> Record {
        self.shared.state().record.clone()
    }

    /// Fails from now on as told; `None` mends it.
    pub(crate) fn set_fault(&self, fault: Option<Fault>) {
        self.shared.state().fault = fault;
    }

    /// True once an operation has failed as told.
    pub(crate) fn was_met(&self) -> bool {
        self.shared.state().met
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        RECORDERS.write().unwrap().retain(|(root, _)| *root != self.root);
    }
}

/// Reads a folder of the real disk and gives its inode.
fn take(folder: &Path, inodes: &mut Vec<Kind>, is_top: bool) -> Inode {
    use std::os::unix::fs::MetadataExt;
    fn walk(folder: &Path, inodes: &mut Vec<Kind>, known: &mut BTreeMap<u64, Inode>, is_top: bool) -> Inode {
        let own = inodes.len();
        inodes.push(Kind::Folder(BTreeMap::new()));
        let mut names = BTreeMap::new();
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if is_top && is_foreign(&entry.file_name()) {
                continue;
            }
            let (path, found) = (entry.path(), entry.metadata().unwrap());
            let inode = if found.is_dir() {
                walk(&path, inodes, known, false)
            } else {
                *known.entry(found.ino()).or_insert_with(|| {
                    inodes.push(match found.is_symlink() {
                        true => Kind::Link(fs::read_link(&path).unwrap()),
                        false => Kind::File(fs::read(&path).unwrap()),
                    });
                    inodes.len() - 1
                })
            };
            names.insert(entry.file_name(), inode);
        }
        inodes[own] = Kind::Folder(names);
        own
    }
    walk(folder, inodes, &mut BTreeMap::new(), is_top)
}

/// Reads the files of a database.
fn database(folder: &Path) -> Database {
    fn walk(folder: &Path, below: &Path, files: &mut BTreeMap<PathBuf, Vec<u8>>) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = below.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                walk(&entry.path(), &path, files);
            } else if let Ok(bytes) = fs::read(entry.path()) {
                // One that is gone meanwhile is none.
                files.insert(path, bytes);
            }
        }
    }
    let mut files = BTreeMap::new();
    walk(folder, Path::new(""), &mut files);
    Database(Arc::new(files))
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Does an operation and records it, unless the disk fails. Below the database it is done only.
    fn operate<T>(
        &self,
        what: &str,
        path: &Path,
        needs: Needs,
        act: impl FnOnce() -> io::Result<T>,
        effects: impl FnOnce(&mut State) -> Vec<Effect>,
    ) -> io::Result<T> {
        let relative = path.strip_prefix(&self.root).unwrap();
        if relative.components().next().is_some_and(|first| is_foreign(first.as_os_str())) {
            return act();
        }
        let mut state = self.state();
        state.may(needs)?;
        let done = act()?;
        let (what, effects) = (format!("{what} {}", relative.display()), effects(&mut state));
        for effect in &effects {
            state.see(effect);
        }
        state.record.operations.push(Operation { what, effects });
        Ok(done)
    }

    /// The folder of a path below the root, and the name in it.
    fn place(&self, state: &State, path: &Path) -> (Inode, OsString) {
        let relative = path.strip_prefix(&self.root).unwrap();
        let parent = relative.parent().unwrap_or(Path::new(""));
        let folder = state.find(parent).unwrap_or_else(|| panic!("{}: not in the record", parent.display()));
        (folder, relative.file_name().unwrap_or_default().to_owned())
    }

    fn inode(&self, state: &State, path: &Path) -> Inode {
        let relative = path.strip_prefix(&self.root).unwrap();
        state.find(relative).unwrap_or_else(|| panic!("{}: not in the record", relative.display()))
    }
}

impl State {
    /// Whether the disk fails now.
    fn may(&mut self, needs: Needs) -> io::Result<()> {
        let Some(fault) = self.fault else { return Ok(()) };
        if self.record.operations.len() < fault.at || !fault.meets(needs) {
            return Ok(());
        }
        self.met = true;
        if !fault.lasting {
            self.fault = None;
        }
        Err(fault.error.into())
    }

    fn find(&self, relative: &Path) -> Option<Inode> {
        relative.components().try_fold(0, |folder, part| match (&self.inodes[folder], part) {
            (Kind::Folder(names), Component::Normal(name)) => names.get(name).copied(),
            _ => None,
        })
    }

    /// The names in a folder and what they stand for change as the program sees them. What a file holds is
    /// read from the real disk.
    fn see(&mut self, effect: &Effect) {
        match effect {
            Effect::New(inode, kind) => {
                assert_eq!(*inode, self.inodes.len());
                self.inodes.push(kind.clone());
            }
            Effect::Names(folder, changes) => {
                let Kind::Folder(names) = &mut self.inodes[*folder] else { panic!("no folder") };
                for (name, inode) in changes {
                    match inode {
                        Some(inode) => names.insert(name.clone(), *inode),
                        None => names.remove(name),
                    };
                }
            }
            Effect::Content(..) | Effect::Synced(_) | Effect::Database(..) => {}
        }
    }
}

/// The disk as the program uses it.
struct Recorded(Arc<Shared>);

impl Recorded {
    /// Makes something new under a name.
    fn make<T>(
        &self,
        what: &str,
        path: &Path,
        kind: Kind,
        act: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        self.0.operate(what, path, Needs::Room, act, |state| {
            let ((folder, name), inode) = (self.0.place(state, path), state.inodes.len());
            vec![Effect::New(inode, kind), Effect::Names(folder, vec![(name, Some(inode))])]
        })
    }

    fn sync(&self, what: &str, path: &Path, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.0.operate(what, path, Needs::Sync, act, |state| vec![Effect::Synced(self.0.inode(state, path))])
    }

    fn remove(&self, what: &str, path: &Path, act: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.0.operate(what, path, Needs::Change, act, |state| {
            let (folder, name) = self.0.place(state, path);
            vec![Effect::Names(folder, vec![(name, None)])]
        })
    }

    fn opened(&self, path: &Path, file: File) -> Box<dyn OpenFile> {
        let inode = self.0.inode(&self.0.state(), path);
        Box::new(RecordedFile { disk: self.0.clone(), path: path.to_owned(), inode, file, at: 0 })
    }
}

impl Disk for Recorded {
    fn create_new(&self, path: &Path, mode: u32) -> io::Result<Box<dyn OpenFile>> {
        use std::os::unix::fs::OpenOptionsExt;
        let open = || File::options().write(true).create_new(true).mode(mode).open(path);
        let file = self.make("create", path, Kind::File(Vec::new()), open)?;
        Ok(self.opened(path, file))
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        match File::options().write(true).open(path) {
            Ok(file) => Ok(self.opened(path, file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.create_new(path, 0o666),
            Err(error) => Err(error),
        }
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.sync("sync file", path, || Real.sync_file(path))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sync("sync folder", path, || Real.sync_dir(path))
    }

    fn sync_database(&self, folder: &Path, file: &File) -> io::Result<()> {
        let name = folder.strip_prefix(&self.0.root).unwrap().to_owned();
        let mut state = self.0.state();
        state.may(Needs::Room)?;
        Real.sync_database(folder, file)?;
        let effects = vec![Effect::Database(name, database(folder))];
        state.record.operations.push(Operation { what: "sync the database".to_owned(), effects });
        Ok(())
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        // What survives of a move between two folders differs among file systems; nothing here relies on it.
        assert_eq!(from.parent(), to.parent(), "a rename between two folders is not recorded");
        self.0.operate(
            "rename to",
            to,
            Needs::Change,
            || Real.rename(from, to),
            |state| {
                let (folder, old) = self.0.place(state, from);
                let moved = self.0.inode(state, from);
                vec![Effect::Names(folder, vec![(old, None), (self.0.place(state, to).1, Some(moved))])]
            },
        )
    }

    fn exchange(&self, one: &Path, other: &Path) -> io::Result<()> {
        assert_eq!(one.parent(), other.parent(), "an exchange between two folders is not recorded");
        self.0.operate(
            "exchange",
            one,
            Needs::Change,
            || Real.exchange(one, other),
            |state| {
                let ((folder, first), (_, second)) = (self.0.place(state, one), self.0.place(state, other));
                let (now, then) = (self.0.inode(state, one), self.0.inode(state, other));
                vec![Effect::Names(folder, vec![(first, Some(then)), (second, Some(now))])]
            },
        )
    }

    fn symlink(&self, target: &Path, path: &Path) -> io::Result<()> {
        self.make("make link", path, Kind::Link(target.to_owned()), || Real.symlink(target, path))
    }

    fn hard_link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.0.operate(
            "give a second name",
            to,
            Needs::Room,
            || Real.hard_link(from, to),
            |state| {
                let ((folder, name), inode) = (self.0.place(state, to), self.0.inode(state, from));
                vec![Effect::Names(folder, vec![(name, Some(inode))])]
            },
        )
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.make("make folder", path, Kind::Folder(BTreeMap::new()), || Real.create_dir(path))
    }

    fn set_mode(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.0.operate("set mode of", path, Needs::Change, || Real.set_mode(path, mode), |_| vec![])
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.remove("remove", path, || Real.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        for entry in fs::read_dir(path)? {
            let entry = entry?;
            match entry.file_type()?.is_dir() {
                true => self.remove_dir_all(&entry.path())?,
                false => self.remove_file(&entry.path())?,
            }
        }
        self.remove("remove folder", path, || fs::remove_dir(path))
    }
}

/// An open file of it.
struct RecordedFile {
    disk: Arc<Shared>,
    path: PathBuf,
    inode: Inode,
    file: File,
    at: u64,
}

impl Write for RecordedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Self { disk, path, inode, file, at } = self;
        disk.operate(
            "write to",
            path,
            Needs::Room,
            || file.write_all(bytes),
            |_| vec![Effect::Content(*inode, Change::Write { at: *at, bytes: bytes.into() })],
        )?;
        *at += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for RecordedFile {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.at = self.file.seek(to)?;
        Ok(self.at)
    }
}

impl OpenFile for RecordedFile {
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        let Self { disk, path, inode, file, .. } = self;
        disk.operate(
            "set length of",
            path,
            Needs::Change,
            || file.set_len(len),
            |_| vec![Effect::Content(*inode, Change::SetLen(len))],
        )
    }

    fn sync_all(&mut self) -> io::Result<()> {
        let Self { disk, path, inode, file, .. } = self;
        disk.operate("sync file", path, Needs::Sync, || file.sync_all(), |_| vec![Effect::Synced(*inode)])
    }

    fn set_mode(&mut self, mode: u32) -> io::Result<()> {
        let Self { disk, path, file, .. } = self;
        disk.operate("set mode of", path, Needs::Change, || OpenFile::set_mode(file, mode), |_| vec![])
    }

    fn give_to(&mut self, user: u32, group: u32) -> io::Result<()> {
        let Self { disk, path, file, .. } = self;
        disk.operate("give away", path, Needs::Change, || file.give_to(user, group), |_| vec![])
    }
}
