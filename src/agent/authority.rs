//! The gate of commands over MQTT: checks the signature, asks [`crate::domain::authority`], and makes the
//! command's number durable before it lets the command in.
//!
//! Which commands must be signed (`[commands]` in `agent.toml`): with `require_signature = "auto"` all that
//! change the device, as soon as the repository lists operators, or where the broker is not at this machine's
//! loopback address (`insecure` in health). So one person with one Pi and a broker on it needs no keys; a broker on another machine
//! needs the one key that signs the models; and whoever lists operators is protected at once, everywhere.
//! Commands that only look stay free unless `unsigned_observe` says otherwise.
//!
//! The number is durable in the store before the command runs, so a power cut between the two loses the
//! command and never runs it twice: sent again it is refused as replayed, and the answer says so. A store
//! that refuses (a full disk) lets no signed command in. A store that was damaged and rebuilt has forgotten
//! the numbers: what has not expired by then could be taken once more, which is why commands should not live
//! long.

use super::audit::{self, Audit, Subject};
use super::bundles::Bundles;
use crate::config::Settings;
use crate::config::settings::{CommandSettings, DeviceSettings, MqttSettings};
use crate::domain::allowance::Allowance;
use crate::domain::audit::Who;
use crate::domain::authority::{Addressee, Clock, Order, Policy, decide, role};
use crate::domain::command::Command;
use crate::domain::refusal::RefusalKind;
use crate::domain::{CommandId, Reason, ReasonCode};
use crate::mqtt::commands::{self, Addressed};
use crate::mqtt::gate::Gate;
use crate::sys::blocking::blocking;
use crate::sys::store::{Batch, Store, Tree};
use crate::sys::time_service;
use crate::telemetry::Telemetry;
use crate::trust::Verified;
use crate::trust::envelope::{self, Statement};
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Keys and audiences whose numbers are kept; beyond that those of keys that are no longer listed are dropped.
const MAX_NUMBERS: usize = 4096;
/// The command that is never too many.
const ALWAYS: &str = "abort";

/// The highest number that a key has used towards an audience.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Highest {
    /// The number.
    pub sequence: u64,
    /// The command that had it.
    pub id: CommandId,
    /// When it was let in, by the trust clock.
    pub at: jiff::Timestamp,
}

/// The highest numbers of all keys; for those who look into a store.
pub fn numbers(store: &Store) -> Tree<Highest> {
    store.tree("command-numbers")
}

/// Decides which commands are let in.
pub struct Authority {
    to: Addressee,
    policy: Policy,
    settings: CommandSettings,
    bundles: Arc<Bundles>,
    store: Store,
    audit: Audit,
    telemetry: Telemetry,
    allowances: Mutex<Allowances>,
    begun: Instant,
}

/// What may still come this minute. Those that only look have an allowance of their own: where they need no
/// signature anybody may use it up, and that must not keep an operator out.
struct Allowances {
    looks: Allowance,
    acts: Allowance,
}

/// A command that is not let in.
struct Refused {
    kind: RefusalKind,
    who: Who,
    reason: Reason,
}

/// A command that is let in, and who sent it.
type Judged = Result<(Who, Command), Refused>;

impl Authority {
    /// For this device, and commands that come by this broker.
    pub fn new(
        settings: &Settings,
        broker: &MqttSettings,
        bundles: Arc<Bundles>,
        store: Store,
        audit: Audit,
        telemetry: Telemetry,
    ) -> Self {
        let DeviceSettings { id: device, groups } = settings.device.clone();
        let to = Addressee { device, groups };
        let settings = settings.commands.clone();
        let policy = settings.policy(&broker.host);
        let allowance = || Allowance::new(settings.per_minute);
        let allowances = Mutex::new(Allowances { looks: allowance(), acts: allowance() });
        Self { to, policy, settings, bundles, store, audit, telemetry, allowances, begun: Instant::now() }
    }

    /// Whether a command that changes this device would be taken without a signature now.
    pub fn is_open(&self) -> bool {
        self.policy.unsigned(crate::domain::authority::Role::Deploy, self.is_listed()).is_ok()
    }

    /// A list that does not hold counts as one.
    fn is_listed(&self) -> bool {
        self.bundles.operators().borrow().as_ref().map_or(true, |list| list.is_listed())
    }

    /// Whether one more may come this minute; `take`: and it comes. A deployment can always be stopped.
    fn allows(&self, command: &str, take: bool) -> bool {
        if command == ALWAYS {
            return true;
        }
        let mut allowances = self.allowances.lock().unwrap_or_else(PoisonError::into_inner);
        let allowances = &mut *allowances;
        let looks = commands::LOOKS.contains(&command);
        let allowance = if looks { &mut allowances.looks } else { &mut allowances.acts };
        let now = self.begun.elapsed();
        if take { allowance.take(now) } else { allowance.has(now) }
    }

    async fn judge(&self, asked: &Addressed<'_>) -> Judged {
        let is_envelope = envelope::is_envelope(asked.payload);
        if !self.allows(&asked.command, false) {
            let who = match envelope::read(asked.payload) {
                Ok(envelope) if is_envelope => Who::Unproved { key: envelope.claimed().key },
                Ok(_) | Err(_) => Who::Anonymous,
            };
            let detail = format!(
                "command {} {}: {} a minute are taken (commands.per_minute); send it again in a minute",
                asked.command, asked.id, self.settings.per_minute
            );
            let reason = Reason::new(ReasonCode::RateLimited, detail);
            return Err(Refused { kind: RefusalKind::RateLimited, who, reason });
        }
        if is_envelope { self.signed(asked).await } else { self.unsigned(asked) }
    }

    fn unsigned(&self, asked: &Addressed<'_>) -> Judged {
        let refused = |kind, reason| Refused { kind, who: Who::Anonymous, reason };
        let command = commands::plain(asked).map_err(|reason| refused(RefusalKind::Malformed, reason))?;
        match self.policy.unsigned(role(&command), self.is_listed()) {
            Ok(()) => Ok((Who::Anonymous, command)),
            Err(refusal) => {
                let detail = format!("command {} {}: {refusal}", asked.command, asked.id);
                Err(refused(RefusalKind::from(&refusal), Reason::new(refusal.code(), detail)))
            }
        }
    }

    async fn signed(&self, asked: &Addressed<'_>) -> Judged {
        let told = |kind, who: &Who, reason: Reason| Refused {
            kind,
            who: who.clone(),
            reason: Reason::new(
                reason.code,
                format!("command {} {}: {}", asked.command, asked.id, reason.detail),
            ),
        };
        let envelope = envelope::read(asked.payload)
            .map_err(|reason| told(RefusalKind::Malformed, &Who::Anonymous, reason))?;
        let key = envelope.claimed().key;
        let unproved = Who::Unproved { key };
        let known = self.bundles.operators().borrow().clone();
        let known = known.map_err(|reason| told(RefusalKind::NobodyKnown, &unproved, reason))?;
        let Some((public, operator)) = known.get(&key) else {
            // It may be new.
            self.bundles.want_operators();
            let who = if known.is_listed() {
                "is not in the repository's list of operators that this device has"
            } else {
                "is no operator: this device knows of none that the repository lists, and it is not the key that \
                 signs the releases"
            };
            let detail =
                format!("the key {}… {who}; if it was listed just now, send again in a minute", key.short());
            let reason = Reason::new(ReasonCode::SignatureInvalid, detail);
            return Err(told(RefusalKind::UnknownKey, &unproved, reason));
        };
        let verified =
            envelope.verify(public).map_err(|reason| told(RefusalKind::BadSignature, &unproved, reason))?;
        // From here on it is certain who speaks.
        let who = Who::Operator { name: operator.name.clone(), key };
        let statement = verified.get();
        let command = commands::action(&statement.action)
            .map_err(|reason| told(RefusalKind::Malformed, &who, reason))?;
        // The topic is not signed: who holds the broker could give an old answer the name of a new command.
        if statement.id != asked.id || command.name() != asked.command {
            let detail = format!(
                "it was signed as {} {}; publish it at the topic of that name",
                command.name(),
                statement.id
            );
            let reason = Reason::new(ReasonCode::BadRequest, detail);
            return Err(told(RefusalKind::Renamed, &who, reason));
        }
        let order = Order {
            audience: statement.audience.clone(),
            sequence: statement.sequence,
            issued_ms: statement.issued.as_millisecond(),
            expires_ms: statement.expires.as_millisecond(),
            role: role(&command),
        };
        let forgetful = |reason| told(RefusalKind::NotRemembered, &who, reason);
        let seen = self.highest(&verified).await.map_err(forgetful)?;
        decide(&order, operator, &self.to, seen, self.clock()).map_err(|refusal| {
            told(RefusalKind::from(&refusal), &who, Reason::new(refusal.code(), refusal.to_string()))
        })?;
        self.remember(&verified, known.iter().map(|(key, _)| key.to_string()).collect())
            .await
            .map_err(forgetful)?;
        tracing::info!(
            operator = %operator.name,
            sequence = statement.sequence,
            "command {} {} is signed, its number is durable",
            asked.command,
            asked.id
        );
        Ok((who, command))
    }

    fn clock(&self) -> Clock {
        let clock = self.bundles.clock();
        let sure = !clock.is_behind() && time_service::clock_synchronised(Path::new("/")) == Some(true);
        let tolerance_ms = i64::try_from(self.settings.clock_tolerance.as_millis()).unwrap_or(i64::MAX);
        Clock { now_ms: clock.now().as_millisecond(), sure, tolerance_ms }
    }

    /// The highest number that was let in of this key to this audience.
    async fn highest(&self, verified: &Verified<Statement>) -> Result<Option<u64>, Reason> {
        let (numbers, name) = (numbers(&self.store), name(verified));
        blocking(move || Ok(numbers.get(&name)?.map(|highest| highest.sequence))).await
    }

    /// Makes the number durable. `listed`: the keys whose numbers must stay.
    async fn remember(&self, verified: &Verified<Statement>, listed: Vec<String>) -> Result<(), Reason> {
        let Statement { sequence, id, .. } = verified.get().clone();
        let highest = Highest { sequence, id, at: self.bundles.clock().now() };
        let (store, name) = (self.store.clone(), name(verified));
        blocking(move || {
            let numbers = numbers(&store);
            let mut batch = Batch::default();
            if numbers.len()? >= MAX_NUMBERS {
                for (old, _) in numbers.entries()? {
                    if old.split_once('/').is_none_or(|(key, _)| !listed.iter().any(|listed| listed == key)) {
                        batch.remove(&numbers, &old);
                    }
                }
            }
            batch.put(&numbers, &name, &highest)?;
            Ok(store.batch(batch)?)
        })
        .await
    }
}

/// Under which a number is kept: the key, and its audience.
fn name(verified: &Verified<Statement>) -> String {
    let statement = verified.get();
    format!("{}/{}", statement.key, statement.audience)
}

impl Gate for Authority {
    fn admit<'a>(&'a self, asked: &'a Addressed<'a>) -> BoxFuture<'a, Result<Command, Reason>> {
        Box::pin(async move {
            let subject = |who, arguments| Subject {
                who,
                to: asked.audience.to_string(),
                command: asked.command.clone(),
                id: asked.id.to_string(),
                arguments,
            };
            match self.judge(asked).await {
                Ok((who, command)) => {
                    self.allows(&asked.command, true);
                    self.audit.admitted(subject(who, audit::arguments(&command)), &command);
                    Ok(command)
                }
                Err(Refused { kind, who, reason }) => {
                    self.telemetry.refused(kind);
                    self.audit.refused(subject(who, Value::Null), kind, &reason);
                    Err(reason)
                }
            }
        })
    }

    fn turned_away(&self, refusal: &commands::Refusal) {
        self.telemetry.refused(refusal.kind);
        let (command, id) = refusal
            .named
            .as_ref()
            .map_or_else(Default::default, |(command, id)| (command.clone(), id.to_string()));
        let subject = Subject { who: Who::Anonymous, to: String::new(), command, id, arguments: Value::Null };
        self.audit.refused(subject, refusal.kind, &refusal.reason);
    }
}
