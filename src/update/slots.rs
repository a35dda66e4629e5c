//! Which bundle serves in which slot: two symbolic links a slot, the truth about it.
//!
//! A link is changed by a rename with its folder synced, so it names the old bundle or the new one
//! after a power cut, never none. `current` is set before `previous`: a cut between the two leaves a
//! `previous` that is one swap old, still a whole bundle, and the journal's record repairs it.

use super::{Folders, stage};
use crate::domain::deployment::BundleRef;
use crate::domain::garbage::Spare;
use crate::domain::{Digest, Reason, ReasonCode, SlotName};
use crate::sys::durable::{self, failed};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Name of the link to the bundle that serves.
const CURRENT: &str = "current";
/// Name of the link to the one before.
const PREVIOUS: &str = "previous";

/// What a slot's links name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Links {
    /// The bundle that serves.
    pub current: Option<BundleRef>,
    /// The bundle that a rollback brings.
    pub previous: Option<BundleRef>,
}

/// Reads a slot's links and looks whether what they name is there. A link to a bundle that is missing
/// or has another manifest is told in the list and counts as none; where that is `current` and
/// `previous` is good, `previous` takes its place (on disk too), so that something serves.
pub fn read(folders: &Folders, slot: &SlotName) -> Result<(Links, Vec<Reason>), Reason> {
    let mut faults = Vec::new();
    let mut look = |name| match follow(folders, slot, name) {
        Ok(found) => found,
        Err(fault) => {
            faults.push(fault);
            None
        }
    };
    let mut links = Links { current: look(CURRENT), previous: look(PREVIOUS) };
    if links.current.is_none() && link(folders, slot, CURRENT).is_symlink() && links.previous.is_some() {
        links = Links { current: links.previous, previous: None };
        set(folders, slot, links.current.as_ref(), None)?;
    }
    Ok((links, faults))
}

/// Sets a slot's links, `current` first. Durable when it returns. May be repeated.
pub fn set(
    folders: &Folders,
    slot: &SlotName,
    current: Option<&BundleRef>,
    previous: Option<&BundleRef>,
) -> Result<(), Reason> {
    durable::create_dir_synced(&folders.slots.join(slot.as_str()))?;
    if let (Some(current), Some(previous)) = (current, previous)
        && change_places(folders, slot, &current.digest, &previous.digest)
    {
        return Ok(());
    }
    set_one(folders, slot, CURRENT, current)?;
    set_one(folders, slot, PREVIOUS, previous)
}

/// The bundle with this identity, if its folder is there and holds that manifest.
pub fn open(folders: &Folders, digest: &Digest) -> Result<BundleRef, Reason> {
    let manifest = stage::read_manifest(&folders.model(digest), digest)?;
    Ok(BundleRef { release: manifest.release(), digest: *digest })
}

/// What is kept though nothing needs it, and what not at all.
#[derive(Debug, Clone, Copy)]
pub struct Keep {
    /// Of the bundles, the last that came first.
    pub bundles: Spare,
    /// Of the downloads, the last that got a byte first; `None` where somebody may be fetching.
    pub downloads: Option<Spare>,
}

/// Removes all bundles but those that a link of any slot names, those in `needed`, and what is to be kept beside
/// them; downloads likewise; and what writers left behind that a fault of the disk ended. Nothing may be
/// fetching or staging meanwhile.
pub fn collect_garbage(folders: &Folders, needed: &BTreeSet<Digest>, keep: Keep) -> Result<(), Reason> {
    let mut needed = needed.clone();
    for slot in fs::read_dir(&folders.slots).map_err(failed("list", &folders.slots))? {
        let slot = slot.map_err(failed("list", &folders.slots))?.path();
        needed
            .extend([CURRENT, PREVIOUS].iter().filter_map(|name| digest_of(&slot.join(name)).ok().flatten()));
    }
    let surplus = |name: &str| name.parse().is_ok_and(|digest| !needed.contains(&digest));
    for model in beyond(&folders.models, keep.bundles, surplus, bundle_size)? {
        durable::remove_dir_synced(&model)?;
    }
    drop_engines(folders)?;
    for folder in [&folders.models, &folders.engines, &folders.downloads] {
        durable::remove_temporaries(folder)?;
    }
    let Some(spare) = keep.downloads else { return Ok(()) };
    // A validator is of use beside its file only.
    let is_part = |name: &str| name.parse::<Digest>().is_ok();
    for part in beyond(&folders.downloads, spare, is_part, stage::size_of)? {
        durable::remove_file_synced(&part)?;
    }
    for other in fs::read_dir(&folders.downloads).map_err(failed("list", &folders.downloads))? {
        let other = other.map_err(failed("list", &folders.downloads))?.path();
        let is_beside =
            other.extension().is_some_and(|end| end == "validator") && other.with_extension("").exists();
        if !is_beside && !other.file_name().and_then(|name| name.to_str()).is_some_and(is_part) {
            durable::remove_file_synced(&other)?;
        }
    }
    Ok(())
}

/// What is too much of a folder's entries with such a name: all but the newest that `spare` keeps.
fn beyond(
    folder: &Path,
    spare: Spare,
    surplus: impl Fn(&str) -> bool,
    size: impl Fn(&Path) -> u64,
) -> Result<Vec<PathBuf>, Reason> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed("list", folder))? {
        let entry = entry.map_err(failed("list", folder))?;
        if entry.file_name().to_str().is_some_and(&surplus) {
            let changed = entry
                .metadata()
                .and_then(|meta| meta.modified())
                .map_err(failed("look at", &entry.path()))?;
            found.push((changed, entry.path()));
        }
    }
    found.sort_by(|a, b| b.cmp(a));
    let kept = spare.keeps(found.iter().map(|(_, path)| size(path)));
    Ok(found.into_iter().skip(kept).map(|(_, path)| path).collect())
}

/// Bytes of a bundle's files by its manifest; of one that cannot be read too many to be kept.
fn bundle_size(path: &Path) -> u64 {
    let digest = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    let manifest = digest.and_then(|digest| stage::read_manifest(path, &digest).ok());
    manifest.map_or(u64::MAX, |manifest| manifest.total_size())
}

/// Removes what was made of models that are in no bundle any more. A bundle that cannot be read keeps
/// nothing: whatever it runs is made anew.
fn drop_engines(folders: &Folders) -> Result<(), Reason> {
    let mut needed = BTreeSet::new();
    for bundle in fs::read_dir(&folders.models).map_err(failed("list", &folders.models))?.flatten() {
        let digest = bundle.file_name().to_str().and_then(|name| name.parse().ok());
        let manifest = digest.and_then(|digest| stage::read_manifest(&bundle.path(), &digest).ok());
        let model = manifest.as_ref().and_then(|m| m.files.iter().find(|file| file.path == m.model));
        needed.extend(model.map(|file| file.sha256));
    }
    for made in fs::read_dir(&folders.engines).map_err(failed("list", &folders.engines))?.flatten() {
        let model: Option<Digest> = made.file_name().to_str().and_then(|name| name.parse().ok());
        if model.is_some_and(|model| !needed.contains(&model)) {
            durable::remove_dir_synced(&made.path())?;
        }
    }
    Ok(())
}

fn link(folders: &Folders, slot: &SlotName, name: &str) -> PathBuf {
    folders.slots.join(slot.as_str()).join(name)
}

/// Where the links name just these two the other way round, as before a rollback, they change places in one
/// step that needs no room on the disk. False where they do not, or where the file system cannot do that.
fn change_places(folders: &Folders, slot: &SlotName, current: &Digest, previous: &Digest) -> bool {
    let [now, before] = [CURRENT, PREVIOUS].map(|name| link(folders, slot, name));
    let names = |link: &Path, digest: &Digest| digest_of(link).is_ok_and(|found| found == Some(*digest));
    current != previous
        && names(&now, previous)
        && names(&before, current)
        && durable::exchange_synced(&now, &before).is_ok()
}

fn set_one(folders: &Folders, slot: &SlotName, name: &str, bundle: Option<&BundleRef>) -> Result<(), Reason> {
    let link = link(folders, slot, name);
    let Some(bundle) = bundle else { return Ok(durable::remove_file_synced(&link)?) };
    if digest_of(&link).is_ok_and(|found| found == Some(bundle.digest)) {
        // It may have been set just before a power cut.
        return Ok(durable::sync_dir(&folders.slots.join(slot.as_str()))?);
    }
    let target = Path::new("../../models").join(bundle.digest.to_string());
    let set = durable::symlink_atomic(&target, &link);
    let Err(error) = set else { return Ok(()) };
    // A full disk must not keep a bad model in its place: the link to go back to is there already, and
    // a rename needs no room.
    let previous = self::link(folders, slot, PREVIOUS);
    if name == CURRENT
        && error.is_disk_full()
        && digest_of(&previous).is_ok_and(|found| found == Some(bundle.digest))
    {
        return Ok(durable::rename_synced(&previous, &link)?);
    }
    Err(error.into())
}

/// The digest that a link names; none where there is no link.
fn digest_of(link: &Path) -> Result<Option<Digest>, Reason> {
    let target = match fs::read_link(link) {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read link", link)(error).into()),
    };
    let digest = target.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
    digest.map(Some).ok_or_else(|| {
        let detail =
            format!("{}: points to {}, which is no bundle of ours", link.display(), target.display());
        Reason::new(ReasonCode::Malformed, detail)
    })
}

fn follow(folders: &Folders, slot: &SlotName, name: &str) -> Result<Option<BundleRef>, Reason> {
    digest_of(&link(folders, slot, name))?.map(|digest| open(folders, &digest)).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::stage::tests::{Repository, folders};

    fn slot() -> SlotName {
        "detector".parse().unwrap()
    }

    #[test]
    fn links_read_back_and_can_be_set_again() {
        let (_dir, folders) = folders();
        let [one, two] = ["1.0.0", "2.0.0"].map(|version| Repository::default().staged(&folders, version));
        assert_eq!(read(&folders, &slot()).unwrap(), (Links::default(), vec![]));
        for _ in 0..2 {
            set(&folders, &slot(), Some(&two), Some(&one)).unwrap();
            let (links, faults) = read(&folders, &slot()).unwrap();
            assert_eq!((links.current, links.previous), (Some(two.clone()), Some(one.clone())));
            assert_eq!(faults, []);
        }
        set(&folders, &slot(), None, None).unwrap();
        assert_eq!(read(&folders, &slot()).unwrap().0, Links::default());
    }

    #[test]
    fn a_rollback_changes_the_links_on_a_disk_without_room() {
        use std::os::unix::fs::MetadataExt;
        let (_dir, folders) = folders();
        let [one, two] = ["1.0.0", "2.0.0"].map(|version| Repository::default().staged(&folders, version));
        set(&folders, &slot(), Some(&two), Some(&one)).unwrap();
        let inodes = || {
            [CURRENT, PREVIOUS].map(|name| link(&folders, &slot(), name).symlink_metadata().unwrap().ino())
        };
        let [current, previous] = inodes();
        set(&folders, &slot(), Some(&one), Some(&two)).unwrap();
        let (links, faults) = read(&folders, &slot()).unwrap();
        assert_eq!((links.current, links.previous, faults), (Some(one), Some(two), vec![]));
        assert_eq!(inodes(), [previous, current], "no new link was made");
    }

    #[test]
    fn a_broken_current_gives_way_to_a_good_previous() {
        for damage in 0..3 {
            let (_dir, folders) = folders();
            let [one, two] =
                ["1.0.0", "2.0.0"].map(|version| Repository::default().staged(&folders, version));
            set(&folders, &slot(), Some(&two), Some(&one)).unwrap();
            let model = folders.model(&two.digest);
            match damage {
                0 => fs::remove_dir_all(model).unwrap(),
                1 => fs::write(model.join(stage::MANIFEST), b"{}").unwrap(),
                _ => durable::symlink_atomic(Path::new("/etc"), &link(&folders, &slot(), CURRENT)).unwrap(),
            }
            let (links, faults) = read(&folders, &slot()).unwrap();
            assert_eq!(links, Links { current: Some(one), previous: None });
            assert_eq!(faults.len(), 1, "{faults:?}");
            let again = read(&folders, &slot()).unwrap();
            assert_eq!(again, (links, vec![]), "mended on the disk");
        }
    }

    #[test]
    fn garbage_is_what_nothing_names() {
        let (_dir, folders) = folders();
        let bundles = ["1.0.0", "2.0.0", "3.0.0", "4.0.0"]
            .map(|version| Repository::default().staged(&folders, version));
        set(&folders, &slot(), Some(&bundles[1]), Some(&bundles[0])).unwrap();
        set(&folders, &"other".parse().unwrap(), Some(&bundles[2]), None).unwrap();
        fs::write(folders.downloads.join("x"), b"x").unwrap();
        let model = |bundle: &BundleRef| {
            let manifest = stage::read_manifest(&folders.model(&bundle.digest), &bundle.digest).unwrap();
            manifest.files.iter().find(|file| file.path == manifest.model).unwrap().sha256
        };
        let engine = |model: Digest| folders.engines.join(model.to_string());
        let (present, absent) = (model(&bundles[0]), Digest::from_bytes([7; 32]));
        for made in [present, absent] {
            fs::create_dir(engine(made)).unwrap();
            fs::write(engine(made).join("graph"), b"x").unwrap();
        }
        collect_garbage(
            &folders,
            &BTreeSet::from([bundles[3].digest]),
            Keep { bundles: Spare::NONE, downloads: None },
        )
        .unwrap();
        assert!(engine(present).exists() && !engine(absent).exists());
        assert!(bundles.iter().all(|bundle| folders.model(&bundle.digest).exists()));
        assert!(folders.downloads.join("x").exists());
        let nothing = Keep { bundles: Spare::NONE, downloads: Some(Spare::NONE) };
        collect_garbage(&folders, &BTreeSet::new(), nothing).unwrap();
        assert!(!folders.model(&bundles[3].digest).exists());
        assert!(bundles[..3].iter().all(|bundle| folders.model(&bundle.digest).exists()));
        assert!(!folders.downloads.join("x").exists());
    }

    #[test]
    fn the_newest_of_the_garbage_is_kept_by_count_and_bytes() {
        use std::fs::{File, FileTimes};
        use std::time::{Duration, SystemTime};
        let (_dir, folders) = folders();
        let bundles = ["1.0.0", "2.0.0", "3.0.0", "4.0.0"]
            .map(|version| Repository::default().staged(&folders, version));
        let aged = |path: &Path, hours: u64| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 - hours * 3600);
            File::open(path).unwrap().set_times(FileTimes::new().set_modified(time)).unwrap();
        };
        set(&folders, &slot(), Some(&bundles[3]), None).unwrap();
        // The newest by its time is not the newest by its version.
        for (bundle, hours) in bundles.iter().zip([1, 3, 2, 9]) {
            aged(&folders.model(&bundle.digest), hours);
        }
        for (number, hours) in [(1, 2), (2, 1), (3, 3)] {
            let part = folders.downloads.join(Digest::from_bytes([number; 32]).to_string());
            fs::write(&part, [0; 10]).unwrap();
            fs::write(part.with_extension("validator"), "x").unwrap();
            aged(&part, hours);
        }
        let there = || bundles.clone().map(|bundle| folders.model(&bundle.digest).exists());
        let size = bundle_size(&folders.model(&bundles[0].digest));
        let collect = |count, bytes| {
            let keep =
                Keep { bundles: Spare { count, bytes }, downloads: Some(Spare { count: 9, bytes: 25 }) };
            collect_garbage(&folders, &BTreeSet::new(), keep).unwrap();
        };
        collect(3, u64::MAX);
        assert_eq!(there(), [true; 4]);
        let part = |number| folders.downloads.join(Digest::from_bytes([number; 32]).to_string());
        assert!(part(1).exists() && part(2).exists() && !part(3).exists());
        assert_eq!(fs::read_dir(&folders.downloads).unwrap().count(), 4, "a validator goes with its part");
        collect(2, u64::MAX);
        assert_eq!(there(), [true, false, true, true]);
        collect(2, size);
        assert_eq!(there(), [true, false, false, true]);
        collect(0, u64::MAX);
        assert_eq!(there(), [false, false, false, true]);
    }
}
