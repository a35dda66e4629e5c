//! What a power cut can leave on a disk, from the record of what was done to it.
//!
//! Names and content are apart, as on a disk: what was written to a file is there for certain once the file
//! was synced, and a name once its folder was. What was not synced may be there or not, each change for itself
//! and in any order, and a write in part: a first piece of it, or with a page of zeroes in it. What changes two
//! names of one folder (a rename, an exchange) is there as a whole or not at all, as file systems with a journal
//! promise. A file that has no name any more is gone.

use super::recorded::{Change, Database, Effect, Inode, Kind, Record};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

/// Of what was not synced, so much survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Left {
    /// All of it.
    All,
    /// Nothing.
    Synced,
    /// The names, and nothing of what files hold: files that were renamed and are empty.
    Names,
    /// The names and the lengths, and zeroes for what files hold.
    Zeroes,
    /// What the dice say.
    Random(u64),
}

/// What is on the disk after a cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Disk {
    /// By their paths; a folder is before what is in it.
    entries: BTreeMap<PathBuf, Entry>,
    database: Option<(PathBuf, Database)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Entry {
    Folder,
    Link(PathBuf),
    File(Vec<u8>),
    /// Another name of the file at this path.
    Same(PathBuf),
}

/// Changes of names of one folder that are made together.
type Names = Vec<(OsString, Option<Inode>)>;

/// An inode with what is not durable of it yet.
enum Node {
    File(Vec<u8>, Vec<Change>),
    Folder(BTreeMap<OsString, Inode>, Vec<Names>),
    Link(PathBuf),
}

impl From<Kind> for Node {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::File(bytes) => Node::File(bytes, Vec::new()),
            Kind::Folder(names) => Node::Folder(names, Vec::new()),
            Kind::Link(target) => Node::Link(target),
        }
    }
}

/// Numbers that look random, always the same for a seed (splitmix64).
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`.
    fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }
}

/// What the disk holds when the power fails after the first `count` operations.
pub(crate) fn after(record: &Record, count: usize, left: Left) -> Disk {
    let mut nodes: Vec<Node> = record.inodes.iter().cloned().map(Node::from).collect();
    let mut database = record.database.clone();
    for effect in record.operations[..count].iter().flat_map(|operation| &operation.effects) {
        match effect {
            Effect::New(_, kind) => nodes.push(kind.clone().into()),
            Effect::Names(folder, names) => {
                let Node::Folder(_, pending) = &mut nodes[*folder] else { unreachable!() };
                pending.push(names.clone());
            }
            Effect::Content(file, change) => {
                let Node::File(_, pending) = &mut nodes[*file] else { unreachable!() };
                pending.push(change.clone());
            }
            Effect::Synced(inode) => nodes[*inode].settle(),
            Effect::Database(path, files) => database = Some((path.clone(), files.clone())),
        }
    }
    let mut dice = match left {
        Left::Random(seed) => Dice(seed ^ ((count as u64) << 32)),
        Left::All | Left::Synced | Left::Names | Left::Zeroes => Dice(0),
    };
    // Some seeds are hard on names and some on content.
    let keep = match left {
        Left::Random(seed) => [[1, 3], [3, 1], [2, 2]][seed as usize % 3],
        Left::All | Left::Synced | Left::Names | Left::Zeroes => [0, 0],
    };
    for node in &mut nodes {
        node.survive(left, keep, &mut dice);
    }
    let mut entries = BTreeMap::new();
    name_all(&nodes, 0, Path::new(""), &mut BTreeMap::new(), &mut entries);
    Disk { entries, database }
}

impl Node {
    /// All of it is durable.
    fn settle(&mut self) {
        match self {
            Node::File(bytes, pending) => pending.drain(..).for_each(|change| write(bytes, &change)),
            Node::Folder(names, pending) => pending.drain(..).for_each(|changes| rename(names, &changes)),
            Node::Link(_) => {}
        }
    }

    /// Only what survives of the rest is durable. `keep`: of four changes of names, and of content.
    fn survive(&mut self, left: Left, keep: [usize; 2], dice: &mut Dice) {
        match (left, &mut *self) {
            (Left::All, _) | (Left::Names | Left::Zeroes, Node::Folder(..)) => self.settle(),
            (Left::Zeroes, Node::File(_, pending)) => {
                for change in pending.iter_mut() {
                    if let Change::Write { bytes, .. } = change {
                        *bytes = vec![0; bytes.len()].into();
                    }
                }
                self.settle();
            }
            (Left::Synced, Node::Folder(_, pending)) => pending.clear(),
            (Left::Synced | Left::Names, Node::File(_, pending)) => pending.clear(),
            (Left::Random(_), Node::Folder(_, pending)) => {
                pending.retain(|_| dice.below(4) < keep[0]);
                self.settle();
            }
            (Left::Random(_), Node::File(_, pending)) => {
                pending.retain(|_| dice.below(4) < keep[1]);
                pending.iter_mut().for_each(|change| tear(change, dice));
                self.settle();
            }
            (Left::Synced | Left::Names | Left::Zeroes | Left::Random(_), Node::Link(_)) => {}
        }
    }
}

/// A third of the writes is torn.
fn tear(change: &mut Change, dice: &mut Dice) {
    let Change::Write { bytes, .. } = change else { return };
    let at = dice.below(bytes.len());
    match dice.below(6) {
        0 => *bytes = bytes[..at].into(),
        1 => {
            let mut torn = bytes.to_vec();
            let page = at / 4096 * 4096;
            let end = torn.len().min(page + 4096);
            torn[page..end].fill(0);
            *bytes = torn.into();
        }
        _ => {}
    }
}

fn write(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { at, bytes } => {
            let (start, end) = (*at as usize, *at as usize + bytes.len());
            // What lies before it and was never written reads as zeroes.
            content.resize(content.len().max(end), 0);
            content[start..end].copy_from_slice(bytes);
        }
        Change::SetLen(len) => content.resize(*len as usize, 0),
    }
}

fn rename(names: &mut BTreeMap<OsString, Inode>, changes: &Names) {
    for (name, inode) in changes {
        match inode {
            Some(inode) => names.insert(name.clone(), *inode),
            None => names.remove(name),
        };
    }
}

/// Everything that has a name below a folder.
fn name_all(
    nodes: &[Node],
    folder: Inode,
    at: &Path,
    known: &mut BTreeMap<Inode, PathBuf>,
    entries: &mut BTreeMap<PathBuf, Entry>,
) {
    let Node::Folder(names, _) = &nodes[folder] else { unreachable!() };
    for (name, inode) in names {
        let path = at.join(name);
        let entry = match (&nodes[*inode], known.get(inode)) {
            (Node::Folder(..), Some(_)) => continue,
            (_, Some(first)) => Entry::Same(first.clone()),
            (Node::Folder(..), None) => Entry::Folder,
            (Node::Link(target), None) => Entry::Link(target.clone()),
            (Node::File(bytes, _), None) => Entry::File(bytes.clone()),
        };
        known.entry(*inode).or_insert_with(|| path.clone());
        let is_folder = entry == Entry::Folder;
        entries.insert(path.clone(), entry);
        if is_folder {
            name_all(nodes, *inode, &path, known, entries);
        }
    }
}

impl Disk {
    /// Writes it into an empty folder of a real disk.
    pub(crate) fn write_to(&self, folder: &Path) {
        for (path, entry) in &self.entries {
            let at = folder.join(path);
            match entry {
                Entry::Folder => fs::create_dir(at).unwrap(),
                Entry::Link(target) => std::os::unix::fs::symlink(target, at).unwrap(),
                Entry::File(bytes) => fs::write(at, bytes).unwrap(),
                Entry::Same(other) => fs::hard_link(folder.join(other), at).unwrap(),
            }
        }
        if let Some((name, files)) = &self.database {
            fs::create_dir(folder.join(name)).unwrap();
            for (path, bytes) in files.0.iter() {
                let at = folder.join(name).join(path);
                fs::create_dir_all(at.parent().unwrap()).unwrap();
                fs::write(at, bytes).unwrap();
            }
        }
    }

    /// Whether it holds the same, the database aside.
    pub(crate) fn holds_the_same(&self, other: &Self) -> bool {
        self.entries == other.entries
    }

    /// The paths of all that is on it, without the database.
    pub(crate) fn paths(&self) -> impl Iterator<Item = &Path> {
        self.entries.keys().map(PathBuf::as_path)
    }

    /// What a file holds; `None` where there is no file.
    pub(crate) fn read(&self, path: &str) -> Option<&[u8]> {
        match self.entries.get(Path::new(path))? {
            Entry::File(bytes) => Some(bytes),
            Entry::Same(other) => self.read(other.to_str()?),
            Entry::Folder | Entry::Link(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
