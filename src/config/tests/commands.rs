//! `[commands]`: its values and its faults.

use super::{SMALLEST, faults, read};
use crate::domain::authority::Requirement::{Always, Auto, Never};

#[test]
fn signatures_are_required_always_never_or_by_circumstance() {
    let of = |value: &str| {
        let text = format!("{SMALLEST}[commands]\nrequire_signature = {value}\n");
        read(&text).unwrap().commands.require_signature
    };
    assert_eq!((of("true"), of("false"), of("\"auto\"")), (Always, Never, Auto));
    assert_eq!(read(SMALLEST).unwrap().commands.require_signature, Auto);
    let insecure = |more: &str| {
        let text = format!("{SMALLEST}[commands]\ninsecure = true\n{more}");
        read(&text).map(|settings| settings.commands.require_signature)
    };
    assert_eq!(insecure("").unwrap(), Never, "the name of today for what was require_signature = false");
    assert_eq!(insecure("require_signature = false\n").unwrap(), Never);
    assert_eq!(insecure("require_signature = \"auto\"\n").unwrap(), Never);
    let faults = faults(&format!("{SMALLEST}[commands]\ninsecure = true\nrequire_signature = true\n"));
    assert!(faults.len() == 1 && faults[0].contains("commands.insecure: contradicts"), "{faults:?}");
}

#[test]
fn each_fault_names_its_remedy() {
    for (key, wanted) in [
        ("require_signature = \"yes\"", "commands.require_signature: expected \"auto\", true or false"),
        ("require_signature = 1", "expected \"auto\", true or false, found a whole number"),
        ("refresh = \"1ms\"", "commands.refresh: \"1ms\" is out of range; use \"1s\" to \"7d\""),
        ("unsigned_observe = \"no\"", "commands.unsigned_observe: expected true or false"),
        ("clock_tolerance = \"2d\"", "commands.clock_tolerance: \"2d\" is out of range"),
        ("insecure = 1", "commands.insecure: expected true or false"),
        ("per_minute = 0", "commands.per_minute: 0 is out of range"),
        ("per_minute = \"many\"", "commands.per_minute"),
        ("set_trial = \"0s\"", "commands.set_trial: \"0s\" is out of range"),
        ("signature = true", "commands.signature: unknown key"),
    ] {
        let faults = faults(&format!("{SMALLEST}[commands]\n{key}\n"));
        assert!(faults.len() == 1 && faults[0].contains(wanted), "{key}: {faults:?}");
    }
}
