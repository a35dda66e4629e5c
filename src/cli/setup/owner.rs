//! Whose the files are that only the agent may read, and folders that it can reach: `setup` is run by
//! root, the agent is not.

use crate::sys::durable::{self, DurableError, failed};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

/// The user that the package makes.
const USER: &str = "edgewarden";
/// Longest list of users that is read, bytes.
const MAX_USERS: u64 = 4 << 20;

/// Who is to have the agent's own files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// Whoever runs this: it is not root, or there is nobody else.
    Oneself,
    /// This user and group.
    User(u32, u32),
}

impl Owner {
    /// Whose files those in the state folder are to be: its owner's, else the agent's user's.
    pub fn of(state: &Path) -> Self {
        if !rustix::process::geteuid().is_root() {
            return Owner::Oneself;
        }
        let has = fs::metadata(state).ok().map(|folder| (folder.uid(), folder.gid()));
        let found = has.filter(|(user, _)| *user != 0).or_else(|| named(USER, &users()));
        found.map_or(Owner::Oneself, |(user, group)| Owner::User(user, group))
    }

    /// True where the agent has no user of its own, and root's files are not for it.
    pub fn is_missing(state: &Path) -> bool {
        rustix::process::geteuid().is_root() && Self::of(state) == Owner::Oneself
    }

    /// User and group where they are not the writer's own.
    pub fn ids(self) -> Option<(u32, u32)> {
        match self {
            Owner::Oneself => None,
            Owner::User(user, group) => Some((user, group)),
        }
    }
}

/// The users of this machine's own list: one that the package makes is always there.
fn users() -> String {
    use std::io::Read;
    let mut text = String::new();
    let read = fs::File::open("/etc/passwd").and_then(|file| file.take(MAX_USERS).read_to_string(&mut text));
    read.map(|_| text).unwrap_or_default()
}

/// User and group of a name in a list like `/etc/passwd`.
fn named(user: &str, list: &str) -> Option<(u32, u32)> {
    let line = list.lines().find(|line| line.split(':').next() == Some(user))?;
    let mut ids = line.split(':').skip(2).map(str::parse);
    Some((ids.next()?.ok()?, ids.next()?.ok()?))
}

/// Makes a folder and its missing parents with this mode, whatever the umask, the folder itself for
/// `owner`. One that is there stays as it is.
pub fn folder(path: &Path, mode: u32, owner: Owner) -> Result<(), DurableError> {
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !above.exists()).collect();
    durable::create_dir_synced(path)?;
    for made in &missing {
        fs::set_permissions(made, fs::Permissions::from_mode(mode)).map_err(failed("set mode of", made))?;
    }
    if let (Some((user, group)), false) = (owner.ids(), missing.is_empty()) {
        chown(path, Some(user), Some(group)).map_err(failed("give away", path))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_found_by_its_name() {
        let list = "root:x:0:0:root:/root:/bin/bash\nedgewarden2:x:7:8::/:\nedgewarden:x:997:995:agent:/x:/y\nbad:x:a:b::\n";
        assert_eq!(named("edgewarden", list), Some((997, 995)));
        assert_eq!(named("root", list), Some((0, 0)));
        assert_eq!(named("bad", list), None);
        assert_eq!(named("nobody", list), None);
        assert!(users().starts_with("root:") || users().contains("\nroot:"));
    }

    #[test]
    fn folders_get_their_mode_and_those_that_are_there_keep_theirs() {
        let dir = tempfile::tempdir().unwrap();
        let old = fs::metadata(dir.path()).unwrap().mode();
        let path = dir.path().join("a/b");
        folder(&path, 0o751, Owner::Oneself).unwrap();
        for made in [&path, &dir.path().join("a")] {
            assert_eq!(fs::metadata(made).unwrap().mode() & 0o777, 0o751);
        }
        folder(&path, 0o700, Owner::Oneself).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o751);
        assert_eq!(fs::metadata(dir.path()).unwrap().mode(), old);
    }
}
