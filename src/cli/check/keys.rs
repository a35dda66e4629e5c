//! What the check says of keys: those that open encrypted models, and those of the models' makers.

use super::Finding;
use crate::bundle::secret;
use crate::config::Settings;
use crate::trust::model_signature::PublicKey;

/// One finding for each file that the configuration names; the device's own key only where it is wrong.
pub fn findings(settings: &Settings) -> Vec<Finding> {
    let mut found = Vec::new();
    for (at, path) in settings.model_keys().into_iter().enumerate() {
        let own = at == 0;
        if own && !path.exists() {
            continue;
        }
        match secret::read_keys(&path) {
            Ok(_) if own => {}
            Ok(keys) => {
                let all: Vec<_> = keys.iter().map(|key| key.recipient().to_string()).collect();
                found.push(Finding::ok("model key", format!("{}: of {}", path.display(), all.join(", "))));
            }
            // Another user than the agent's may not read it, which is as it should be.
            Err(fault) => found.push(Finding::warn("model key", fault)),
        }
    }
    for path in &settings.update.require_model_signature {
        found.push(match PublicKey::load(path) {
            Ok(key) => Finding::ok("model signer", format!("{}: key {}", path.display(), key.id())),
            Err(reason) => Finding::fail("model signer", reason.detail),
        });
    }
    found
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;
    use crate::config::{self, Surroundings};
    use crate::sys::age::Identity;
    use std::fs::{Permissions, set_permissions, write};
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    /// What is found of one kind in this folder.
    fn found(folder: &Path, keys: &str) -> Vec<(Level, String)> {
        let text =
            format!("[[pipeline]]\nsource = {{ kind = \"synthetic\" }}\n[paths]\nstate = {folder:?}\n{keys}");
        let settings = config::from_text(&text, folder, &Surroundings::default()).unwrap();
        findings(&settings).into_iter().map(|finding| (finding.level, finding.detail)).collect()
    }

    #[test]
    fn a_key_that_opens_nothing_and_a_signer_that_is_none_are_told() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        assert_eq!(found(dir, ""), [], "a device may have no key");
        let key = Identity::generate().unwrap();
        let place = |name: &str, mode: u32| {
            write(dir.join(name), key.key_file().as_bytes()).unwrap();
            set_permissions(dir.join(name), Permissions::from_mode(mode)).unwrap();
        };
        place("model-key.txt", 0o600);
        place("group.txt", 0o600);
        let of_group = "[runtime]\nmodel_keys = [\"group.txt\"]\n";
        let recipient = key.recipient().to_string();
        let [(Level::Ok, told)] = &found(dir, of_group)[..] else { panic!("the group's, not its own") };
        assert!(told.contains(&recipient) && told.contains("group.txt"), "{told}");
        place("model-key.txt", 0o644);
        place("group.txt", 0o640);
        let open = found(dir, of_group);
        assert_eq!(open.len(), 2, "{open:?}");
        assert!(
            open.iter().all(|(level, told)| *level == Level::Warn && told.contains("chmod 600")),
            "{open:?}"
        );
        let signers = found(dir, "[update]\nrequire_model_signature = [\"nobody.pub\"]\n");
        assert!(
            matches!(&signers[1..], [(Level::Fail, told)] if told.contains("nobody.pub")),
            "a device would take no model: {signers:?}"
        );
    }
}
