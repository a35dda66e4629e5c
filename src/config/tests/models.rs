//! Whose models a device takes, and which keys open encrypted ones.

use super::{SMALLEST, faults, read};
use std::path::PathBuf;

#[test]
fn keys_of_models_are_files_or_credentials_beside_the_devices_own() {
    let text = format!(
        "{SMALLEST}[paths]\nstate = \"/state\"\n[runtime]\nmodel_keys = [\"group.txt\", \"credential:key\"]\n\
         [update]\nrequire_model_signature = [\"team.pem\"]\n"
    );
    let settings = read(&text).unwrap();
    let keys =
        ["/state/model-key.txt", "/etc/edgewarden/group.txt", "/run/credentials/edgewarden.service/key"];
    assert_eq!(settings.model_keys(), keys.map(PathBuf::from));
    assert_eq!(settings.update.require_model_signature, [PathBuf::from("/etc/edgewarden/team.pem")]);
    assert_eq!(read(SMALLEST).unwrap().model_keys(), [PathBuf::from("/var/lib/edgewarden/model-key.txt")]);
}

#[test]
fn each_fault_is_named() {
    let many = format!("[runtime]\nmodel_keys = [{}]\n", "\"a\", ".repeat(17));
    for (text, wanted) in [
        ("[runtime]\nmodel_keys = \"a\"\n", "runtime.model_keys: expected a list, found text"),
        ("[runtime]\nmodel_keys = [\"credential:../x\"]\n", "runtime.model_keys: is no credential"),
        (many.as_str(), "runtime.model_keys: has 17 items; at most 16 are possible"),
        (
            "[update]\nrequire_model_signature = true\n",
            "update.require_model_signature: expected a list, found",
        ),
        ("[update]\nrequire_model_signature = [\"~/a\"]\n", "\"~\" means nothing to a daemon"),
    ] {
        let faults = faults(&format!("{SMALLEST}{text}"));
        assert_eq!(faults.len(), 1, "{text}: {faults:?}");
        assert!(faults[0].contains(wanted), "{text}: {faults:?}");
    }
}
