//! Which bundle serves in which slot: two symbolic links a slot, the truth about it.
//!
//! A link is changed by a rename with its folder synced, so it names the old bundle or the new one
//! after a power cut, never none. `current` is set before `previous`: a cut between the two leaves a
//! `previous` that is one swap old, still a whole bundle, and the journal's record repairs it.

use super::{Folders, stage};
use crate::domain::deployment::BundleRef;
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

/// Removes all bundles but those that a link of any slot names and those in `keep`; all downloads too
/// where `downloads` says so, and what writers left behind that a fault of the disk ended. Nothing may be
/// fetching or staging meanwhile.
pub fn collect_garbage(folders: &Folders, keep: &BTreeSet<Digest>, downloads: bool) -> Result<(), Reason> {
    let mut keep = keep.clone();
    for slot in fs::read_dir(&folders.slots).map_err(failed("list", &folders.slots))? {
        let slot = slot.map_err(failed("list", &folders.slots))?.path();
        keep.extend([CURRENT, PREVIOUS].iter().filter_map(|name| digest_of(&slot.join(name)).ok().flatten()));
    }
    for model in fs::read_dir(&folders.models).map_err(failed("list", &folders.models))? {
        let model = model.map_err(failed("list", &folders.models))?;
        let digest = model.file_name().to_str().and_then(|name| name.parse().ok());
        if digest.is_some_and(|digest| !keep.contains(&digest)) {
            durable::remove_dir_synced(&model.path())?;
        }
    }
    drop_engines(folders)?;
    for folder in [&folders.models, &folders.engines, &folders.downloads] {
        durable::remove_temporaries(folder)?;
    }
    if downloads {
        for file in fs::read_dir(&folders.downloads).map_err(failed("list", &folders.downloads))? {
            durable::remove_file_synced(&file.map_err(failed("list", &folders.downloads))?.path())?;
        }
    }
    Ok(())
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
        collect_garbage(&folders, &BTreeSet::from([bundles[3].digest]), false).unwrap();
        assert!(engine(present).exists() && !engine(absent).exists());
        assert!(bundles.iter().all(|bundle| folders.model(&bundle.digest).exists()));
        assert!(folders.downloads.join("x").exists());
        collect_garbage(&folders, &BTreeSet::new(), true).unwrap();
        assert!(!folders.model(&bundles[3].digest).exists());
        assert!(bundles[..3].iter().all(|bundle| folders.model(&bundle.digest).exists()));
        assert!(!folders.downloads.join("x").exists());
    }
}
