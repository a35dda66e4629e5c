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
}

#[test]
fn each_fault_names_its_remedy() {
    for (key, wanted) in [
        ("require_signature = \"yes\"", "commands.require_signature: expected \"auto\", true or false"),
        ("require_signature = 1", "expected \"auto\", true or false, found a whole number"),
        ("refresh = \"1ms\"", "commands.refresh: \"1ms\" is out of range; use \"1s\" to \"7d\""),
        ("unsigned_observe = \"no\"", "commands.unsigned_observe: expected true or false"),
        ("clock_tolerance = \"2d\"", "commands.clock_tolerance: \"2d\" is out of range"),
        ("signature = true", "commands.signature: unknown key"),
    ] {
        let faults = faults(&format!("{SMALLEST}[commands]\n{key}\n"));
        assert!(faults.len() == 1 && faults[0].contains(wanted), "{key}: {faults:?}");
    }
}
