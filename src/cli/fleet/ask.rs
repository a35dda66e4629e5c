//! Sends a command and collects the answers of those who are expected to give one.
//!
//! The answers are asked for at the devices' own topics (`ack/…`), not at one of ours: there the broker guards
//! who speaks, and no device can answer in the name of another.

use super::{now_ms, take, tell_how_whole};
use crate::cli::exit::Interrupted;
use crate::domain::authority::Audience;
use crate::domain::fleet::answers::{Answers, Reply};
use crate::domain::fleet::{Fleet, Presence};
use crate::domain::{CommandId, DeviceId, Reason, ReasonCode};
use crate::mqtt::operator::{Operator, Patience};
use crate::mqtt::topics::{Said, Topic};
use serde_json::{Map, Value};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait for the broker to take the command.
const SENDING: Duration = Duration::from_secs(15);
/// Devices named in a sentence.
const NAMED: usize = 10;

/// A command that is to be sent.
pub(super) struct Question<'a> {
    /// To whom.
    pub(super) audience: &'a Audience,
    /// Its name.
    pub(super) command: &'a str,
    /// What it takes.
    pub(super) arguments: &'a Map<String, Value>,
    /// Who signs it.
    pub(super) signing: &'a super::sign::Signing,
    /// How long answers are waited for.
    pub(super) timeout: Duration,
    /// Send it also where nobody seems to be there.
    pub(super) anyway: bool,
}

/// Sees the answers as they come.
pub(super) type Sees<'a> = &'a mut (dyn FnMut(&DeviceId, &Reply) -> anyhow::Result<()> + Send);

/// Sends it and waits until all have come to their end, or for as long as is told. The answers say who has
/// not. `sees_other` gets the messages that are no answers.
///
/// # Errors
/// Where nobody is there to answer; where it cannot be signed or sent; and with [`Interrupted`] at Ctrl-C, which
/// leaves the command to the devices.
pub(super) async fn ask(
    operator: &Operator,
    question: &Question<'_>,
    sees: Sees<'_>,
    sees_other: &mut (dyn FnMut(crate::mqtt::message::Received) + Send),
) -> anyhow::Result<Answers> {
    let Question { audience, command, .. } = question;
    let expected = expected(operator, audience, question.anyway).await?;
    let id = CommandId::from(uuid::Uuid::now_v7());
    let payload = question.signing.payload(&id, audience, command, question.arguments)?;
    let topics = operator.topics();
    let ack = Said::Ack { command: (*command).to_owned(), id: id.clone() };
    let filter = match audience {
        Audience::Device(device) => topics.said(device, &ack),
        Audience::Group(_) => topics.of_every_device(&ack.to_string()),
    };
    operator.hear(vec![filter]).await?;
    operator.say(audience, command, &id, payload.into(), SENDING).await?;

    let mut answers = Answers::new(expected, super::MOST_DEVICES);
    let end = Instant::now() + question.timeout;
    let mut stopped = std::pin::pin!(tokio::signal::ctrl_c());
    while !answers.are_complete() {
        let left = end.saturating_duration_since(Instant::now());
        let message = tokio::select! {
            _ = &mut stopped => {
                anstream::eprintln!(
                    "edgewarden: {command} {id} is with the devices and goes on there; `edgewarden fleet show` tells \
                     where it stands"
                );
                return Err(Interrupted.into());
            }
            message = operator.next(left) => message,
        };
        let Some(message) = message else { break };
        let said = topics.parse(&message.topic);
        match said {
            Some(Topic::Said { device, said }) if said == ack => {
                if let Some(reply) = answers.take(&device, &message.payload) {
                    sees(&device, &reply)?;
                }
            }
            Some(Topic::Said { .. } | Topic::Command { .. } | Topic::Desired { .. }) | None => {
                sees_other(message)
            }
        }
    }
    if answers.has_beyond() {
        anstream::eprintln!(
            "edgewarden: more than {} devices answer; the others are not shown",
            super::MOST_DEVICES
        );
    }
    Ok(answers)
}

/// Who is to answer: the device, or those of the group who are connected.
async fn expected(operator: &Operator, audience: &Audience, anyway: bool) -> anyhow::Result<Vec<DeviceId>> {
    let topics = operator.topics().clone();
    let filters = match audience {
        Audience::Device(device) => vec![topics.said(device, &Said::Availability)],
        Audience::Group(_) => ["availability", "birth"].map(|below| topics.of_every_device(below)).into(),
    };
    let mut fleet = Fleet::new(super::MOST_DEVICES);
    let whole = operator
        .read_retained(filters, Patience::default(), &mut |message| take(&mut fleet, &topics, &message))
        .await?;
    tell_how_whole(whole, &fleet, "");
    let there = |device: &DeviceId| {
        fleet.devices().get(device).map_or(Presence::Unknown, |view| view.presence(now_ms(), i64::MAX))
    };
    let refuse = |what: String| {
        Err(Reason::new(ReasonCode::NotFound, format!("{what}; --anyway sends it all the same")).into())
    };
    match audience {
        Audience::Device(device) => match there(device) {
            Presence::Unknown if !anyway => {
                refuse(format!("{device}: the broker knows of no such device; see `edgewarden fleet list`"))
            }
            Presence::Offline if !anyway => refuse(format!(
                "{device}: is offline; a broker may keep the command and deliver it up to an hour later"
            )),
            _ => Ok(vec![device.clone()]),
        },
        Audience::Group(group) => {
            let members = fleet.devices().iter().filter(|(_, view)| view.is_in(group.as_str()));
            let (online, away): (Vec<_>, Vec<_>) = members
                .map(|(device, _)| device.clone())
                .partition(|device| matches!(there(device), Presence::Online | Presence::Stale));
            if !away.is_empty() {
                anstream::eprintln!(
                    "edgewarden: {} of the group not online; the broker may deliver the command when they come back: {}",
                    if away.len() == 1 { "one is".to_owned() } else { format!("{} are", away.len()) },
                    names(&away)
                );
            }
            if online.is_empty() && !anyway {
                return refuse(format!(
                    "group {group}: no device of it is online; see `edgewarden fleet list`"
                ));
            }
            Ok(online)
        }
    }
}

/// Some names, and how many more there are.
pub(super) fn names(devices: &[DeviceId]) -> String {
    let mut told: Vec<String> = devices.iter().take(NAMED).map(ToString::to_string).collect();
    if devices.len() > NAMED {
        told.push(format!("and {} more", devices.len() - NAMED));
    }
    told.join(", ")
}
