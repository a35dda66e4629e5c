//! Every topic of the device, built and read in one place.
//!
//! ```text
//! <root>/<device>/availability                    retained, also the last will
//! <root>/<device>/birth                           retained
//! <root>/<device>/health                          retained
//! <root>/<device>/model/<slot>/state              retained
//! <root>/<device>/counts/<pipeline>               retained
//! <root>/<device>/event/<pipeline>
//! <root>/<device>/telemetry/<pipeline>
//! <root>/<device>/snapshot/<pipeline>             a JPEG
//! <root>/<device>/metrics
//! <root>/<device>/dropped
//! <root>/<device>/ack/<command>/<id>
//! <root>/<device>/cmd/<command>/<id>              to the device
//! <root>/group/<group>/cmd/<command>/<id>         to every device of the group
//! <root>/<device>/model/<slot>/desired            retained: what a slot is wanted to run
//! <root>/group/<group>/model/<slot>/desired       the same for every device of the group
//! ```
//!
//! Nothing listens to `desired` yet: it is the place of [`crate::domain::desired`].
//!
//! The root is one level, so that no topic has more than 7 slashes (the limit of AWS IoT Core).

pub use crate::domain::authority::Audience;
use crate::domain::{CommandId, DeviceId, PipelineName, Reason, ReasonCode, SlotName};
use std::fmt;

/// The level that stands in a device's place in the topics of groups.
const GROUP: &str = "group";

/// What a device says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// `online` or `offline`, plain text.
    Availability,
    /// What the device is.
    Birth,
    /// How it is.
    Health,
    /// What a slot runs, and its deployment.
    SlotState(SlotName),
    /// What the model said about a frame.
    Telemetry(PipelineName),
    /// What happened to an event.
    Event(PipelineName),
    /// How many events there were and are.
    Counts(PipelineName),
    /// A frame as a JPEG.
    Snapshot(PipelineName),
    /// Figures.
    Metrics,
    /// How many messages that had to arrive never will.
    Dropped,
    /// A reply to a command without a response topic.
    Ack {
        /// The command's name, as its sender wrote it.
        command: String,
        /// The sender's name for it.
        id: CommandId,
    },
}

/// A topic under the root, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Topic {
    /// From a device.
    Said {
        /// Who.
        device: DeviceId,
        /// What.
        said: Said,
    },
    /// To a device or group.
    Command {
        /// To whom.
        audience: Audience,
        /// The command's name, as its sender wrote it; not checked.
        command: String,
        /// The sender's name for it.
        id: CommandId,
    },
    /// What a slot of a device, or of the devices of a group, is wanted to run.
    Desired {
        /// To whom.
        audience: Audience,
        /// Which slot.
        slot: SlotName,
    },
}

/// Builds and reads the topics under one root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    root: String,
}

impl Topics {
    /// A root of one level.
    ///
    /// # Errors
    /// [`ReasonCode::BadRequest`] for an empty root, or one with `/`, `+`, `#`, `$` or control characters.
    pub fn new(root: &str) -> Result<Self, Reason> {
        let bad = |c: char| matches!(c, '/' | '+' | '#' | '$') || c.is_control();
        if root.is_empty() || root.len() > crate::domain::id::MAX_NAME || root.contains(bad) {
            let detail =
                format!("mqtt root \"{root}\": use one level of 1 to 64 characters without / + # and $");
            return Err(Reason::new(ReasonCode::BadRequest, detail));
        }
        Ok(Self { root: root.to_owned() })
    }

    /// The root.
    pub fn root(&self) -> &str {
        &self.root
    }

    /// The topic of something that `device` says.
    pub fn said(&self, device: &DeviceId, said: &Said) -> String {
        format!("{}/{device}/{said}", self.root)
    }

    /// The topic of a command.
    pub fn command(&self, audience: &Audience, command: &str, id: &CommandId) -> String {
        format!("{}/{}/cmd/{command}/{id}", self.root, prefix(audience))
    }

    /// The filter for all commands to an audience.
    pub fn commands(&self, audience: &Audience) -> String {
        format!("{}/{}/cmd/+/+", self.root, prefix(audience))
    }

    /// The topic of what a slot is wanted to run.
    pub fn desired(&self, audience: &Audience, slot: &SlotName) -> String {
        format!("{}/{}/model/{slot}/desired", self.root, prefix(audience))
    }

    /// The filter for something that every device says: [`Self::said`] with `+` for the device. What has a
    /// name of its own in it (a slot, a pipeline) is given as `below`, with `+` for the name.
    pub fn of_every_device(&self, below: &str) -> String {
        format!("{}/+/{below}", self.root)
    }

    /// The same for one device.
    pub fn of_device(&self, device: &DeviceId, below: &str) -> String {
        format!("{}/{device}/{below}", self.root)
    }

    /// The filter for all that a device says and is told.
    pub fn all_of(&self, device: &DeviceId) -> String {
        self.of_device(device, "#")
    }

    /// Whether a requester may have its replies there. A topic of a device or a command is refused:
    /// else anybody who may send a command could speak in this device's name to others.
    pub fn may_answer_to(&self, topic: &str) -> bool {
        !topic.is_empty()
            && topic.len() <= 256
            && !topic.starts_with('$')
            && !topic.contains(|c: char| matches!(c, '+' | '#') || c.is_control())
            && self.parse(topic).is_none()
    }

    /// Where an operator's own replies go; never the topic of a device, whose id starts with a
    /// letter or digit.
    pub fn operator_replies(&self, client_id: &str) -> String {
        format!("{}/_reply/{client_id}", self.root)
    }

    /// Reads a topic; `None` for one that is not ours.
    pub fn parse(&self, topic: &str) -> Option<Topic> {
        let levels: Vec<&str> = topic.strip_prefix(&self.root)?.strip_prefix('/')?.split('/').collect();
        let said = |device: &str, said| Some(Topic::Said { device: device_id(device)?, said });
        match levels.as_slice() {
            [GROUP, group, "cmd", command, id] => Some(Topic::Command {
                audience: Audience::Group(group.parse().ok()?),
                command: (*command).to_owned(),
                id: id.parse().ok()?,
            }),
            [device, "cmd", command, id] => Some(Topic::Command {
                audience: Audience::Device(device_id(device)?),
                command: (*command).to_owned(),
                id: id.parse().ok()?,
            }),
            [GROUP, group, "model", slot, "desired"] => Some(Topic::Desired {
                audience: Audience::Group(group.parse().ok()?),
                slot: slot.parse().ok()?,
            }),
            [device, "model", slot, "desired"] => Some(Topic::Desired {
                audience: Audience::Device(device_id(device)?),
                slot: slot.parse().ok()?,
            }),
            [device, "availability"] => said(device, Said::Availability),
            [device, "birth"] => said(device, Said::Birth),
            [device, "health"] => said(device, Said::Health),
            [device, "metrics"] => said(device, Said::Metrics),
            [device, "dropped"] => said(device, Said::Dropped),
            [device, "model", slot, "state"] => said(device, Said::SlotState(slot.parse().ok()?)),
            [device, "telemetry", pipeline] => said(device, Said::Telemetry(pipeline.parse().ok()?)),
            [device, "event", pipeline] => said(device, Said::Event(pipeline.parse().ok()?)),
            [device, "counts", pipeline] => said(device, Said::Counts(pipeline.parse().ok()?)),
            [device, "snapshot", pipeline] => said(device, Said::Snapshot(pipeline.parse().ok()?)),
            [device, "ack", command, id] => {
                said(device, Said::Ack { command: (*command).to_owned(), id: id.parse().ok()? })
            }
            _ => None,
        }
    }
}

impl Said {
    /// Whether the broker keeps the newest for those who come later.
    pub fn is_retained(&self) -> bool {
        match self {
            Said::Availability | Said::Birth | Said::Health | Said::SlotState(_) | Said::Counts(_) => true,
            Said::Telemetry(_)
            | Said::Event(_)
            | Said::Snapshot(_)
            | Said::Metrics
            | Said::Dropped
            | Said::Ack { .. } => false,
        }
    }
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Said::Availability => f.write_str("availability"),
            Said::Birth => f.write_str("birth"),
            Said::Health => f.write_str("health"),
            Said::SlotState(slot) => write!(f, "model/{slot}/state"),
            Said::Telemetry(pipeline) => write!(f, "telemetry/{pipeline}"),
            Said::Event(pipeline) => write!(f, "event/{pipeline}"),
            Said::Counts(pipeline) => write!(f, "counts/{pipeline}"),
            Said::Snapshot(pipeline) => write!(f, "snapshot/{pipeline}"),
            Said::Metrics => f.write_str("metrics"),
            Said::Dropped => f.write_str("dropped"),
            Said::Ack { command, id } => write!(f, "ack/{command}/{id}"),
        }
    }
}

/// A device's id, unless it is the word that stands for groups.
fn device_id(level: &str) -> Option<DeviceId> {
    if level == GROUP { None } else { level.parse().ok() }
}

/// Refuses an id that would make a device's topics those of a group.
///
/// # Errors
/// [`ReasonCode::BadRequest`].
pub fn check_device(device: &DeviceId) -> Result<(), Reason> {
    match device_id(device.as_str()) {
        Some(_) => Ok(()),
        None => Err(Reason::new(
            ReasonCode::BadRequest,
            format!("device id \"{device}\": this word is kept for groups; give [device] another id"),
        )),
    }
}

fn prefix(audience: &Audience) -> String {
    match audience {
        Audience::Device(device) => device.to_string(),
        Audience::Group(group) => format!("{GROUP}/{group}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9][a-zA-Z0-9_.-]{0,20}".prop_filter("no ..", |s| !s.contains(".."))
    }

    fn said() -> impl Strategy<Value = Said> {
        prop_oneof![
            Just(Said::Availability),
            Just(Said::Birth),
            Just(Said::Health),
            Just(Said::Metrics),
            name().prop_map(|n| Said::SlotState(n.parse().unwrap())),
            name().prop_map(|n| Said::Telemetry(n.parse().unwrap())),
            name().prop_map(|n| Said::Event(n.parse().unwrap())),
            name().prop_map(|n| Said::Counts(n.parse().unwrap())),
            name().prop_map(|n| Said::Snapshot(n.parse().unwrap())),
            (name(), name()).prop_map(|(command, id)| Said::Ack { command, id: id.parse().unwrap() }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_built_reads_back(device in name(), said in said()) {
            prop_assume!(device != GROUP);
            let topics = Topics::new("edgewarden").unwrap();
            let device: DeviceId = device.parse().unwrap();
            let text = topics.said(&device, &said);
            prop_assert!(text.matches('/').count() <= 7);
            prop_assert_eq!(topics.parse(&text), Some(Topic::Said { device, said }));
        }

        #[test]
        fn commands_read_back(to in name(), group: bool, command in name(), id in name()) {
            prop_assume!(to != GROUP);
            let topics = Topics::new("edgewarden").unwrap();
            let to: DeviceId = to.parse().unwrap();
            let audience = if group { Audience::Group(to) } else { Audience::Device(to) };
            let id: CommandId = id.parse().unwrap();
            let text = topics.command(&audience, &command, &id);
            prop_assert!(text.matches('/').count() <= 7);
            prop_assert_eq!(topics.parse(&text), Some(Topic::Command { audience, command, id }));
        }

        #[test]
        fn what_is_desired_reads_back(to in name(), group: bool, slot in name()) {
            prop_assume!(to != GROUP);
            let topics = Topics::new("edgewarden").unwrap();
            let to: DeviceId = to.parse().unwrap();
            let audience = if group { Audience::Group(to) } else { Audience::Device(to) };
            let slot: SlotName = slot.parse().unwrap();
            let text = topics.desired(&audience, &slot);
            prop_assert!(text.matches('/').count() <= 7);
            prop_assert_eq!(topics.parse(&text), Some(Topic::Desired { audience, slot }));
            prop_assert!(!topics.may_answer_to(&text), "a reply is no wish");
        }

        #[test]
        fn what_is_read_was_built(text in "(edgewarden|other)(/[a-z+#.]{0,9}|/cmd|/group|/ack|/model|/state|/desired){0,6}") {
            let topics = Topics::new("edgewarden").unwrap();
            match topics.parse(&text) {
                Some(Topic::Said { device, said }) => prop_assert_eq!(topics.said(&device, &said), text),
                Some(Topic::Command { audience, command, id }) => {
                    prop_assert_eq!(topics.command(&audience, &command, &id), text)
                }
                Some(Topic::Desired { audience, slot }) => prop_assert_eq!(topics.desired(&audience, &slot), text),
                None => {}
            }
        }
    }

    #[test]
    fn foreign_and_crooked_topics_are_not_ours() {
        let topics = Topics::new("edgewarden").unwrap();
        for text in [
            "",
            "edgewarden",
            "edgewarden/pi",
            "edgewardenx/pi/birth",
            "other/pi/birth",
            "edgewarden/pi/birth/x",
            "edgewarden/pi/cmd/update",
            "edgewarden/pi/cmd/update/..",
            "edgewarden/group/cmd/update/1",
            "edgewarden/group/birth",
            "edgewarden/pi/model//state",
            "edgewarden/group/model/a/desired",
            "edgewarden/pi/model/a/wanted",
        ] {
            assert_eq!(topics.parse(text), None, "{text}");
        }
    }

    #[test]
    fn replies_cannot_be_aimed_at_devices() {
        let topics = Topics::new("edgewarden").unwrap();
        for bad in [
            "",
            "$SYS/x",
            "a/+",
            "#",
            "edgewarden/pi/cmd/restart/1",
            "edgewarden/pi/availability",
            "edgewarden/pi/model/a/desired",
            &"a".repeat(257),
        ] {
            assert!(!topics.may_answer_to(bad), "{bad}");
        }
        for good in ["replies/1", &topics.operator_replies("op-1")] {
            assert!(topics.may_answer_to(good), "{good}");
        }
    }

    #[test]
    fn a_device_cannot_be_named_like_the_groups() {
        assert!(check_device(&"group".parse().unwrap()).is_err());
        assert!(check_device(&"group1".parse().unwrap()).is_ok());
        for root in ["", "a/b", "+", "#", "$SYS", "a\n"] {
            assert!(Topics::new(root).is_err(), "{root:?}");
        }
    }
}
