//! Names and identities, each checked once where it enters and a type of its own from then on.
//!
//! All of them may become part of an MQTT topic, a file name or a TUF target path, so none can hold
//! a slash, a wildcard, a dot-dot or a control character.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};

/// Longest name accepted, in bytes; keeps topics within the limits of every broker.
pub const MAX_NAME: usize = 64;

/// Why a text is not an acceptable name, digest or release.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text breaks the rule for names.
    #[error(
        "{what} \"{text}\": use 1 to {MAX_NAME} of a-z, A-Z, 0-9, '-', '_' and '.', starting with a letter or digit"
    )]
    Name {
        /// What the text was meant to name.
        what: &'static str,
        /// The text as given, shortened.
        text: String,
    },
    /// The text is not 64 hexadecimal digits.
    #[error("digest \"{0}\": expected 64 hexadecimal digits of a SHA-256")]
    Digest(String),
    /// The text is not `NAME@VERSION`.
    #[error("release \"{0}\": expected NAME@VERSION with a semantic version, such as detector@1.2.0")]
    Release(String),
}

/// True when `text` is 1..=[`MAX_NAME`] safe characters and starts with a letter or digit.
fn is_name(text: &str) -> bool {
    text.len() <= MAX_NAME
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
        && !text.contains("..")
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $type(String);

        impl $type {
            /// The checked text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError::Name { what: $what, text: text.chars().take(80).collect() })
                }
            }
        }

        impl TryFrom<String> for $type {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$type> for String {
            fn from(name: $type) -> String {
                name.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name!(
    /// A machine that runs the agent; unique in its fleet.
    DeviceId, "device id");
name!(
    /// One source → one model → its outputs.
    PipelineName, "pipeline name");
name!(
    /// A named place on a device that a bundle fills.
    SlotName, "slot name");
name!(
    /// The name of a model, the same over all its versions.
    ModelName, "model name");
name!(
    /// One command as its sender named it; replies and doubles are matched by it.
    CommandId, "command id");
name!(
    /// Somebody whose key may sign commands.
    OperatorName, "operator name");
name!(
    /// A named part of a pipeline's picture.
    ZoneName, "zone name");
name!(
    /// One attempt to bring a slot to a release.
    DeploymentId, "deployment id");

/// A UUID's text obeys the rule for names.
macro_rules! from_uuid {
    ($type:ident) => {
        impl From<uuid::Uuid> for $type {
            fn from(id: uuid::Uuid) -> Self {
                Self(id.to_string())
            }
        }
    };
}

from_uuid!(CommandId);
from_uuid!(DeploymentId);

/// A SHA-256, written as 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps the 32 bytes of a finished SHA-256.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The first 12 hexadecimal digits, for people; never for comparing.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl FromStr for Digest {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes)
            .map_err(|_| IdError::Digest(text.chars().take(80).collect()))?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> String {
        digest.to_string()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

/// A model's name and version: the unit that is rolled out. Written `NAME@VERSION`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Release {
    /// The model.
    pub name: ModelName,
    /// Its version.
    pub version: semver::Version,
}

impl Release {
    /// Joins a name and a version.
    pub fn new(name: ModelName, version: semver::Version) -> Self {
        Self { name, version }
    }
}

impl FromStr for Release {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        let bad = || IdError::Release(text.chars().take(80).collect());
        let (name, version) = text.split_once('@').ok_or_else(bad)?;
        if version.len() > MAX_NAME {
            return Err(bad());
        }
        Ok(Self { name: name.parse()?, version: version.parse().map_err(|_| bad())? })
    }
}

impl TryFrom<String> for Release {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<Release> for String {
    fn from(release: Release) -> String {
        release.to_string()
    }
}

impl fmt::Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_could_leave_their_folder_or_topic_are_refused() {
        for bad in ["", ".", "..", "a/b", "a..b", "-x", "a b", "+", "#", "ä", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<SlotName>().is_err(), "{bad:?} must be refused");
        }
        for good in ["detector", "pi-4.local", "A_1"] {
            assert_eq!(good.parse::<SlotName>().unwrap().as_str(), good);
        }
    }

    #[test]
    fn a_uuid_is_a_good_name() {
        let id = uuid::Uuid::from_u128(u128::MAX);
        assert_eq!(id.to_string().parse(), Ok(CommandId::from(id)));
        assert_eq!(id.to_string().parse(), Ok(DeploymentId::from(id)));
    }

    #[test]
    fn a_release_reads_back_as_written() {
        let release: Release = "detector@1.2.0-rc.1".parse().unwrap();
        assert_eq!(release.to_string(), "detector@1.2.0-rc.1");
        for bad in ["detector", "detector@", "detector@1", "@1.0.0", "a/b@1.0.0"] {
            assert!(bad.parse::<Release>().is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn a_digest_is_64_hexadecimal_digits() {
        let text = "ab".repeat(32);
        assert_eq!(text.parse::<Digest>().unwrap().to_string(), text);
        assert!("ab".parse::<Digest>().is_err());
        assert!("zz".repeat(32).parse::<Digest>().is_err());
    }
}
