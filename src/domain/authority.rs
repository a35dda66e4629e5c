//! May this command run? One pure decision over what was signed, by whom, what was seen before, and the time.
//!
//! A command is signed for an audience (a device or a group) under a number that rises with each command of
//! its key to that audience. Whoever holds the broker can hold a command back, and that is all: it cannot
//! make one, send it to another, or have it run twice. The caller checks the signature, makes the number
//! durable, and only then lets the command run.
//!
//! # The time
//!
//! The device's time is the trust clock: the latest of the system clock, the build, and the last time that
//! was accepted with signed metadata. Commands expire by it. A board without a battery begins in the past, so:
//!
//! - a command that seems to come from the future is refused only where the clock is *sure* (a time server
//!   has set it, and it is not behind what is known). Else a device whose clock is never set could never be
//!   commanded. Nothing is lost by it: a number counts once, whenever it was given;
//! - with a clock that is behind, a command that was held back may still count after its end. What is left
//!   then is the number: once a later one of the same key was seen, the earlier ones are refused for ever;
//! - no command ever sets the clock. A stolen key could drive it into the future, and every signature of
//!   the repository would be taken for expired.
//!
//! A clock that runs ahead refuses commands as expired until it is set right, or until they are signed with
//! a longer life; the agent's own socket does not ask the time.

use super::command::Command;
use super::id::{DeviceId, IdError, OperatorName};
use super::reason::ReasonCode;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Longest time from a command's issue to its end, milliseconds: 30 days.
pub const MAX_LIFETIME_MS: i64 = 30 * 86_400_000;

/// What a key may be good for. None of them includes another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// To look: status, a picture, the log, what is wrong, who it is, the audit log.
    Observe,
    /// To keep the device going: pause, resume, restart, set.
    Operate,
    /// To choose which of the signed models runs: update, rollback, abort.
    Deploy,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Observe, Role::Operate, Role::Deploy];

    /// As it is written in lists of operators.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::Observe => "observe",
            Role::Operate => "operate",
            Role::Deploy => "deploy",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The role that a command needs. To stop a deployment is part of choosing what runs: a key that may not
/// deploy must not be able to keep an update out.
pub fn role(command: &Command) -> Role {
    match command {
        Command::Status
        | Command::Snapshot { .. }
        | Command::Logs { .. }
        | Command::Diagnose
        | Command::Identify { .. }
        | Command::Audit { .. } => Role::Observe,
        Command::Pause { .. } | Command::Restart | Command::Set { .. } => Role::Operate,
        Command::Update { .. }
        | Command::Install { .. }
        | Command::Rollback { .. }
        | Command::Abort { .. } => Role::Deploy,
    }
}

/// To whom a command is said. Written `press-7` or `group:line-3`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// One device.
    Device(DeviceId),
    /// All devices of a group.
    Group(DeviceId),
}

impl fmt::Display for Audience {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Audience::Device(device) => write!(f, "{device}"),
            Audience::Group(group) => write!(f, "group:{group}"),
        }
    }
}

impl FromStr for Audience {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        match text.strip_prefix("group:") {
            Some(group) => group.parse().map(Audience::Group),
            None => text.parse().map(Audience::Device),
        }
    }
}

/// Who may be commanded here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Addressee {
    /// This device.
    pub device: DeviceId,
    /// Groups whose commands it obeys.
    pub groups: Vec<DeviceId>,
}

impl Addressee {
    /// Whether this device is meant.
    pub fn is_meant(&self, audience: &Audience) -> bool {
        match audience {
            Audience::Device(device) => *device == self.device,
            Audience::Group(group) => self.groups.contains(group),
        }
    }
}

/// Somebody whose key the repository lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Operator {
    /// For people.
    pub name: OperatorName,
    /// What the key is good for.
    pub roles: BTreeSet<Role>,
    /// The groups whose devices it may command; `None`: every device.
    pub groups: Option<BTreeSet<DeviceId>>,
    /// From then on it is good for nothing; milliseconds since 1970.
    pub expires_ms: Option<i64>,
}

impl Operator {
    /// A single device may be addressed where it is in one of the operator's groups.
    fn may_address(&self, audience: &Audience, to: &Addressee) -> bool {
        let Some(groups) = &self.groups else { return true };
        match audience {
            Audience::Group(group) => groups.contains(group),
            Audience::Device(_) => to.groups.iter().any(|group| groups.contains(group)),
        }
    }
}

/// What was signed, as far as the decision goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// To whom.
    pub audience: Audience,
    /// Rises with each command of its key to its audience.
    pub sequence: u64,
    /// When it was signed, milliseconds since 1970.
    pub issued_ms: i64,
    /// From when on it does not count any more, milliseconds since 1970.
    pub expires_ms: i64,
    /// What its action needs.
    pub role: Role,
}

/// The device's time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// The trust clock, milliseconds since 1970.
    pub now_ms: i64,
    /// Set by a time server, and not behind what is known to have passed.
    pub sure: bool,
    /// How far ahead a command's issue may be, milliseconds.
    pub tolerance_ms: i64,
}

/// Why a command is not run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It carries no signature, and must.
    Unsigned(Role),
    /// It is for another device or group.
    ForAnother(Audience),
    /// The operator's key is past its end.
    KeyExpired(OperatorName),
    /// The operator lacks the role that the action needs.
    LacksRole(OperatorName, Role),
    /// The operator may not address this audience.
    MayNotAddress(OperatorName, Audience),
    /// It ends before it begins, or lives too long.
    BadLifetime,
    /// It was issued so many milliseconds ahead of a clock that is sure.
    FromTheFuture(i64),
    /// It ended so many milliseconds ago.
    Expired(i64),
    /// Its number is not above the highest that was seen.
    Replayed {
        /// Its number.
        sequence: u64,
        /// The highest that was seen of this key to this audience.
        seen: u64,
    },
}

impl Refusal {
    /// For machines.
    pub fn code(&self) -> ReasonCode {
        match self {
            Refusal::Unsigned(_) => ReasonCode::Unsigned,
            Refusal::ForAnother(_) => ReasonCode::WrongAudience,
            Refusal::LacksRole(..) | Refusal::MayNotAddress(..) => ReasonCode::NotAllowed,
            Refusal::BadLifetime => ReasonCode::BadRequest,
            Refusal::FromTheFuture(_) => ReasonCode::NotYetValid,
            Refusal::KeyExpired(_) | Refusal::Expired(_) => ReasonCode::Expired,
            Refusal::Replayed { .. } => ReasonCode::Replayed,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::Unsigned(role) => write!(
                f,
                "it carries no signature, and commands that need the role {role} must; sign it with \
                 `edgewarden sign-command`, or, on a bench, let whoever may publish to the broker command this device \
                 (commands.insecure = true)"
            ),
            Refusal::ForAnother(audience) => write!(f, "it was signed for {audience}, not for this device"),
            Refusal::KeyExpired(name) => {
                write!(
                    f,
                    "the key of operator {name} has expired; list a new one with `edgewarden repo operators set`"
                )
            }
            Refusal::LacksRole(name, role) => {
                write!(
                    f,
                    "operator {name} does not have the role {role} in the repository's list of operators"
                )
            }
            Refusal::MayNotAddress(name, audience) => {
                write!(f, "operator {name} may not command {audience} by the repository's list of operators")
            }
            Refusal::BadLifetime => write!(
                f,
                "it must expire after it was issued, and at most {} days later; sign it again",
                MAX_LIFETIME_MS / 86_400_000
            ),
            Refusal::FromTheFuture(ahead) => write!(
                f,
                "it was issued {} s ahead of this device's clock; set the clock where it was signed",
                ahead / 1000
            ),
            Refusal::Expired(ago) => write!(
                f,
                "it expired {} s ago by this device's clock; sign it again, or for longer with --expires",
                ago / 1000
            ),
            Refusal::Replayed { sequence, seen } => write!(
                f,
                "its number {sequence} is not above {seen}, which this device has seen from the same key; it was \
                 sent before or out of order, and is not run again: ask for the state, and sign a new one if need be"
            ),
        }
    }
}

/// Judges a command whose signature is the operator's. `seen` is the highest number of this key to this
/// audience that was accepted before. The number counts last, so that whatever else is wrong with a command
/// does not use it up.
///
/// # Errors
/// The first reason why it must not run.
pub fn decide(
    order: &Order,
    operator: &Operator,
    to: &Addressee,
    seen: Option<u64>,
    clock: Clock,
) -> Result<(), Refusal> {
    let name = || operator.name.clone();
    if !to.is_meant(&order.audience) {
        return Err(Refusal::ForAnother(order.audience.clone()));
    }
    if operator.expires_ms.is_some_and(|end| end <= clock.now_ms) {
        return Err(Refusal::KeyExpired(name()));
    }
    if !operator.roles.contains(&order.role) {
        return Err(Refusal::LacksRole(name(), order.role));
    }
    if !operator.may_address(&order.audience, to) {
        return Err(Refusal::MayNotAddress(name(), order.audience.clone()));
    }
    let lifetime = order.expires_ms.saturating_sub(order.issued_ms);
    if !(1..=MAX_LIFETIME_MS).contains(&lifetime) {
        return Err(Refusal::BadLifetime);
    }
    let ahead = order.issued_ms.saturating_sub(clock.now_ms);
    if clock.sure && ahead > clock.tolerance_ms {
        return Err(Refusal::FromTheFuture(ahead));
    }
    if order.expires_ms <= clock.now_ms {
        return Err(Refusal::Expired(clock.now_ms.saturating_sub(order.expires_ms)));
    }
    match seen {
        Some(seen) if order.sequence <= seen => Err(Refusal::Replayed { sequence: order.sequence, seen }),
        Some(_) | None => Ok(()),
    }
}

/// When commands must be signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Where the repository lists operators, or the broker is on another machine.
    Auto,
    /// Always.
    Always,
    /// Never; a signature that is there is checked all the same.
    Never,
}

/// Which commands are taken without a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// When commands must be signed.
    pub requirement: Requirement,
    /// Whether commands that only look are exempt.
    pub unsigned_observe: bool,
    /// The broker is on this machine, at its loopback address.
    pub loopback: bool,
}

impl Policy {
    /// Judges a command without a signature. `listed`: the repository lists operators, or is known to have
    /// a list that could not be read.
    ///
    /// # Errors
    /// [`Refusal::Unsigned`].
    pub fn unsigned(&self, role: Role, listed: bool) -> Result<(), Refusal> {
        let demanded = match self.requirement {
            Requirement::Always => true,
            Requirement::Never => false,
            Requirement::Auto => listed || !self.loopback,
        };
        let exempt = role == Role::Observe && self.unsigned_observe;
        if demanded && !exempt { Err(Refusal::Unsigned(role)) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests;
