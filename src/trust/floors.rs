//! What a newer timestamp or snapshot may not take back.
//!
//! The specification compares with what is trusted (5.4.3, 5.5.5). What is trusted must not be forgotten
//! just because somebody let a new timestamp through and withheld its snapshot; so the files that are kept
//! are compared as well, whatever else fits together.

use serde_json::Value;
use std::collections::BTreeMap;

/// What `new` would take back of `kept`, both signed files of the same role: its own version, or a file that
/// it lists, which is listed no more or with a lower version. `None` where it takes back nothing, and where
/// `kept` cannot be read: a damaged file is no floor.
pub(super) fn lowered(kept: &[u8], new: &[u8]) -> Option<String> {
    let (kept, new) = (Versions::of(kept)?, Versions::of(new)?);
    if new.own < kept.own {
        return Some(format!(
            "{} has version {}, but version {} was seen before",
            kept.role, new.own, kept.own
        ));
    }
    kept.listed.iter().find_map(|(name, version)| match new.listed.get(name) {
        None => Some(format!("{} no longer lists {name}, which it did before", kept.role)),
        Some(lower) if lower < version => Some(format!(
            "{} lists version {lower} of {name}, but version {version} was seen before",
            kept.role
        )),
        Some(_) => None,
    })
}

struct Versions {
    role: String,
    own: u64,
    listed: BTreeMap<String, u64>,
}

impl Versions {
    fn of(file: &[u8]) -> Option<Self> {
        let file: Value = serde_json::from_slice(file).ok()?;
        let signed = file.get("signed")?;
        let version = |value: &Value| value.get("version").and_then(Value::as_u64);
        let meta = signed.get("meta").and_then(Value::as_object);
        Some(Self {
            role: signed.get("_type")?.as_str()?.to_owned(),
            own: version(signed)?,
            listed: meta
                .into_iter()
                .flatten()
                .filter_map(|(name, pin)| Some((name.clone(), version(pin)?)))
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn snapshot(version: u64, listed: &[(&str, u64)]) -> Vec<u8> {
        let meta: BTreeMap<&str, Value> =
            listed.iter().map(|(name, version)| (*name, json!({ "version": version }))).collect();
        serde_json::to_vec(
            &json!({ "signed": { "_type": "snapshot", "version": version, "meta": meta }, "signatures": [] }),
        )
        .unwrap()
    }

    #[test]
    fn versions_rise_and_nothing_is_taken_off_the_list() {
        let kept = snapshot(5, &[("a.json", 3), ("b.json", 7)]);
        for new in [
            kept.clone(),
            snapshot(6, &[("a.json", 3), ("b.json", 7)]),
            snapshot(6, &[("a.json", 4), ("b.json", 7), ("c.json", 1)]),
        ] {
            assert_eq!(lowered(&kept, &new), None);
        }
        for (new, words) in [
            (snapshot(4, &[("a.json", 3), ("b.json", 7)]), "version 4, but version 5"),
            (snapshot(6, &[("a.json", 2), ("b.json", 7)]), "version 2 of a.json, but version 3"),
            (snapshot(6, &[("a.json", 3)]), "no longer lists b.json"),
        ] {
            let told = lowered(&kept, &new).unwrap();
            assert!(told.contains(words), "{told}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_no_floor() {
        let new = snapshot(1, &[]);
        for kept in [&b""[..], b"{}", b"\xff", br#"{"signed":{"_type":"snapshot","version":"5"}}"#] {
            assert_eq!(lowered(kept, &new), None);
        }
    }
}
