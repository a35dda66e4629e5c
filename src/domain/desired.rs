//! What a slot is wanted to run: the document that is to lie, retained and signed, at
//! `<root>/<device>/model/<slot>/desired` and `<root>/group/<group>/model/<slot>/desired`.
//!
//! **Nothing acts on it yet.** No device subscribes to these topics and nothing writes to them; this file and
//! [`crate::mqtt::topics`] keep the place free, so that rollouts in waves need no new topics and no new words.
//!
//! How it differs from the command `update`: a command is an event, is refused when it was retained, and reaches
//! who is online (or comes back within the broker's session). A wish is a state. A device that was in a drawer for
//! a year reads it when it connects; one that fell behind finds the newest and none in between. So a wish may be
//! retained, and its age says nothing; its number does.
//!
//! It is to be signed as commands are: a DSSE envelope ([`crate::trust::envelope`] has the format), under a payload type of its own
//! ([`PAYLOAD_TYPE`]), so that a wish is never taken for a command nor the other way round, by an operator with the
//! role `deploy` ([`super::authority`]). `audience` and `slot` are signed and must be those of the topic: a broker
//! cannot hand the wish of one device to another. `sequence` rises with each wish of its key to its audience and
//! slot; the device is to keep the highest that it took, durable before it acts, and to ignore a lower one: a
//! broker can hold a wish back, and cannot bring an old one again.
//!
//! A device's own wish is to stand above that of its groups. What a device in two groups with two wishes does is
//! left to who builds rollouts.

use super::authority::Audience;
use super::id::{Release, SlotName};
use super::shadow::ShadowWish;
use serde::{Deserialize, Serialize};

/// What the signed payload is.
pub const PAYLOAD_TYPE: &str = "application/vnd.edgewarden.desired.v1+json";

/// What a slot is wanted to run, as it is to stand in the signed payload.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Desired {
    /// For whom.
    pub audience: Audience,
    /// Which slot.
    pub slot: SlotName,
    /// What it is to run; `None` takes the wish back and changes nothing on the device.
    pub release: Option<Release>,
    /// Rises with each wish of its key to this audience and slot.
    pub sequence: u64,
    /// When it was signed, milliseconds since 1970; for people, as `sequence` decides.
    pub issued_ms: i64,
    /// From when on nobody begins with it any more, milliseconds since 1970; a device that runs the release then
    /// keeps it.
    pub expires_ms: i64,
    /// How the release runs in the shadow before it counts, in place of the configuration.
    #[serde(default)]
    pub shadow: ShadowWish,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_wish_reads_back_and_unknown_words_are_refused() {
        let written = json!({
            "audience": { "group": "line-3" },
            "slot": "detector",
            "release": "belt-inspector@2.0.0",
            "sequence": 7,
            "issued_ms": 1_800_000_000_000_i64,
            "expires_ms": 1_800_086_400_000_i64,
        });
        let wish: Desired = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(wish.audience.to_string(), "group:line-3");
        let again = serde_json::to_value(&wish).unwrap();
        assert_eq!(serde_json::from_value::<Desired>(again).unwrap(), wish);
        let mut more = written.clone();
        more["wave"] = json!(1);
        assert!(serde_json::from_value::<Desired>(more).is_err());
        let mut back = written;
        back["release"] = json!(null);
        assert_eq!(serde_json::from_value::<Desired>(back).unwrap().release, None);
    }
}
