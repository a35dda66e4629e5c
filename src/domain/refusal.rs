//! Why a command over MQTT was not let in, as a list: what is counted, told and tested goes by it.

use super::authority::Refusal;
use serde::{Deserialize, Serialize};
use std::fmt;

/// One kind of refusal. Written in `snake_case` in figures, health and the audit log; never renamed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusalKind {
    /// Its topic is that of no command; nobody can be answered.
    BadTopic,
    /// The broker had kept it: it may be of any age.
    Retained,
    /// Longer than a command may be.
    Oversize,
    /// No command, or an envelope that is none.
    Malformed,
    /// It carries no signature, and must.
    Unsigned,
    /// The repository's list could not be read, so nobody is known who may command.
    NobodyKnown,
    /// Its key is that of no operator: never listed, or revoked.
    UnknownKey,
    /// Its signature is not that of its key.
    BadSignature,
    /// It was signed under another name or id than its topic says.
    Renamed,
    /// It was signed for another device or group.
    WrongAudience,
    /// The operator's key is past its end.
    KeyExpired,
    /// The operator lacks the role.
    LacksRole,
    /// The operator may not command this device or group.
    NotTheirs,
    /// It ends before it begins, or lives too long.
    BadLifetime,
    /// It was issued ahead of a clock that is sure.
    FromTheFuture,
    /// It is past its end.
    Expired,
    /// Its number was seen before.
    Replayed,
    /// Its number could not be made durable.
    NotRemembered,
    /// More came in a minute than may.
    RateLimited,
    /// Too many wait already.
    Waiting,
}

impl RefusalKind {
    /// Every kind.
    pub const ALL: [RefusalKind; 20] = [
        RefusalKind::BadTopic,
        RefusalKind::Retained,
        RefusalKind::Oversize,
        RefusalKind::Malformed,
        RefusalKind::Unsigned,
        RefusalKind::NobodyKnown,
        RefusalKind::UnknownKey,
        RefusalKind::BadSignature,
        RefusalKind::Renamed,
        RefusalKind::WrongAudience,
        RefusalKind::KeyExpired,
        RefusalKind::LacksRole,
        RefusalKind::NotTheirs,
        RefusalKind::BadLifetime,
        RefusalKind::FromTheFuture,
        RefusalKind::Expired,
        RefusalKind::Replayed,
        RefusalKind::NotRemembered,
        RefusalKind::RateLimited,
        RefusalKind::Waiting,
    ];

    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalKind::BadTopic => "bad_topic",
            RefusalKind::Retained => "retained",
            RefusalKind::Oversize => "oversize",
            RefusalKind::Malformed => "malformed",
            RefusalKind::Unsigned => "unsigned",
            RefusalKind::NobodyKnown => "nobody_known",
            RefusalKind::UnknownKey => "unknown_key",
            RefusalKind::BadSignature => "bad_signature",
            RefusalKind::Renamed => "renamed",
            RefusalKind::WrongAudience => "wrong_audience",
            RefusalKind::KeyExpired => "key_expired",
            RefusalKind::LacksRole => "lacks_role",
            RefusalKind::NotTheirs => "not_theirs",
            RefusalKind::BadLifetime => "bad_lifetime",
            RefusalKind::FromTheFuture => "from_the_future",
            RefusalKind::Expired => "expired",
            RefusalKind::Replayed => "replayed",
            RefusalKind::NotRemembered => "not_remembered",
            RefusalKind::RateLimited => "rate_limited",
            RefusalKind::Waiting => "waiting",
        }
    }
}

impl fmt::Display for RefusalKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl From<&Refusal> for RefusalKind {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::Unsigned(_) => RefusalKind::Unsigned,
            Refusal::ForAnother(_) => RefusalKind::WrongAudience,
            Refusal::KeyExpired(_) => RefusalKind::KeyExpired,
            Refusal::LacksRole(..) => RefusalKind::LacksRole,
            Refusal::MayNotAddress(..) => RefusalKind::NotTheirs,
            Refusal::BadLifetime => RefusalKind::BadLifetime,
            Refusal::FromTheFuture(_) => RefusalKind::FromTheFuture,
            Refusal::Expired(_) => RefusalKind::Expired,
            Refusal::Replayed { .. } => RefusalKind::Replayed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_kind_has_one_name_and_it_is_the_written_one() {
        let names: BTreeSet<&str> = RefusalKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(names.len(), RefusalKind::ALL.len());
        for kind in RefusalKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.as_str());
        }
    }
}
