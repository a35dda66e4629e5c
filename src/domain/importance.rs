//! How much a message that must arrive matters: what a full spool drops first, and how many it dropped.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Classes of messages, the least important first: the order in which a full spool drops them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Importance {
    /// What was seen. There may be many, and a gap in them hurts least.
    Event,
    /// An answer to a command. Who asked hours ago has left, and can ask again.
    Reply,
    /// A change of how the device is.
    Health,
    /// What a slot runs and where its deployment stands: what a fleet is steered by.
    #[default]
    Deployment,
}

impl Importance {
    /// Every class, the least important first.
    pub const ALL: [Importance; 4] =
        [Importance::Event, Importance::Reply, Importance::Health, Importance::Deployment];

    /// As it is written in payloads and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Importance::Event => "event",
            Importance::Reply => "reply",
            Importance::Health => "health",
            Importance::Deployment => "deployment",
        }
    }
}

/// Messages that had to arrive and were dropped, by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dropped {
    /// Events.
    pub event: u64,
    /// Replies to commands.
    pub reply: u64,
    /// Changes of health.
    pub health: u64,
    /// Slot and deployment states.
    pub deployment: u64,
}

impl Dropped {
    /// How many of a class.
    pub fn of(&self, class: Importance) -> u64 {
        match class {
            Importance::Event => self.event,
            Importance::Reply => self.reply,
            Importance::Health => self.health,
            Importance::Deployment => self.deployment,
        }
    }

    /// Counts `count` more of a class.
    pub fn add(&mut self, class: Importance, count: u64) {
        match class {
            Importance::Event => self.event += count,
            Importance::Reply => self.reply += count,
            Importance::Health => self.health += count,
            Importance::Deployment => self.deployment += count,
        }
    }

    /// All of them.
    pub fn total(&self) -> u64 {
        Importance::ALL.into_iter().map(|class| self.of(class)).sum()
    }

    /// What came since an earlier count.
    pub fn since(&self, earlier: &Dropped) -> Dropped {
        let mut more = Dropped::default();
        for class in Importance::ALL {
            more.add(class, self.of(class).saturating_sub(earlier.of(class)));
        }
        more
    }
}

/// Such as "3 of event, 1 of health"; nothing for none.
impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let told = Importance::ALL.into_iter().filter(|class| self.of(*class) > 0);
        for (n, class) in told.enumerate() {
            let comma = if n > 0 { ", " } else { "" };
            write!(f, "{comma}{} of {}", self.of(class), class.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_counted_by_its_own_name() {
        let mut counts = Dropped::default();
        for (n, class) in (1..).zip(Importance::ALL) {
            counts.add(class, n);
            assert_eq!(serde_json::to_value(class).unwrap(), class.as_str());
            assert_eq!(serde_json::to_value(counts).unwrap()[class.as_str()], n);
        }
        assert_eq!(counts.total(), 10);
        assert_eq!(counts.to_string(), "1 of event, 2 of reply, 3 of health, 4 of deployment");
        let mut later = counts;
        later.add(Importance::Health, 7);
        assert_eq!(later.since(&counts).to_string(), "7 of health");
        assert!(Importance::ALL.is_sorted(), "the least important first");
    }
}
