//! Carries out commands, whoever sent them, and answers each.

use super::audit::{self, Audit, Subject};
use super::bundles::Bundles;
use super::diagnose::diagnose;
use super::host::Device;
use super::identify::identify;
use super::local::LocalRequest;
use super::local::handover::HandedOver;
use super::outlet::Outlet;
use super::remote::{Begun, Remote, Wish};
use crate::config::{Settings, remote};
use crate::domain::audit::Who;
use crate::domain::authority::{Role, role};
use crate::domain::command::{Command, LogLevel, Progress, Request};
use crate::domain::config_trial::Before;
use crate::domain::{CommandId, DeviceId, PipelineName, Reason, ReasonCode, SlotName};
use crate::mqtt;
use crate::sys::blocking::blocking;
use crate::telemetry::log;
use crate::update::driver::{Ticket, Updater};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

/// What a command is told whose deployment outlives the agent.
const GOES_ON: &str = "the agent ends; the deployment goes on at its next start";

/// Most bytes of log lines in an answer: it must fit into a message, and JSON takes more than the lines.
const MAX_LOG: usize = 48 << 10;

/// Where the answers to a command go.
pub enum Replies {
    /// To the sender on MQTT.
    Mqtt(mqtt::Replies),
    /// To a client of the local socket.
    Local(mpsc::Sender<Progress>),
}

impl Replies {
    /// A client that reads slowly may miss progress, never the end.
    async fn send(&self, progress: Progress) {
        match (self, &progress) {
            (Replies::Mqtt(replies), _) => replies.send(progress),
            (Replies::Local(replies), Progress::Executing { .. }) => drop(replies.try_send(progress)),
            (Replies::Local(replies), Progress::Successful { .. } | Progress::Failed { .. }) => {
                drop(replies.send(progress).await);
            }
        }
    }
}

/// A command and where its answers go.
pub struct Ordered {
    /// The command.
    pub request: Request,
    /// Its answers.
    pub replies: Replies,
}

impl From<mqtt::Incoming> for Ordered {
    fn from(incoming: mqtt::Incoming) -> Self {
        Self { request: incoming.request, replies: Replies::Mqtt(incoming.replies) }
    }
}

impl Ordered {
    /// A command from this machine. One that changes the device is written down; those over MQTT are by their gate.
    pub fn local(local: LocalRequest, device: &DeviceId, audit: &Audit) -> Self {
        let LocalRequest { request, replies, uid } = local;
        if role(&request.command) != Role::Observe {
            let subject = Subject {
                who: Who::Local { uid },
                to: device.to_string(),
                command: request.command.name().to_owned(),
                id: request.id.to_string(),
                arguments: audit::arguments(&request.command),
            };
            audit.admitted(subject, &request.command);
        }
        Self { request, replies: Replies::Local(replies) }
    }
}

/// What commands act on; cheap to clone.
#[derive(Clone)]
pub struct Commands {
    /// The pipelines.
    pub device: Arc<Device>,
    /// The slots' deployments.
    pub updater: Arc<Updater<Bundles>>,
    /// The broker, for pictures.
    pub mqtt: Option<mqtt::Handle>,
    /// Files that were handed over for a command.
    pub handed_over: HandedOver,
    /// Cancelled when the agent is to start anew.
    pub restart: CancellationToken,
    /// What was seen in the newest frames.
    pub outlet: Arc<Outlet>,
    /// Who commanded what.
    pub audit: Audit,
    /// The configuration, for what is asked of it.
    pub settings: Arc<Settings>,
    /// Where it lies, and its part that is set from afar.
    pub config: Arc<PathBuf>,
    /// Held by what may run only once at a time: a check, a change of the configuration.
    pub alone: Arc<Semaphore>,
}

impl Commands {
    /// Carries one command out; `status` is what `Status` answers. `place` is its place among the commands that
    /// are carried out at once.
    pub async fn execute(
        &self,
        ordered: Ordered,
        status: impl Future<Output = serde_json::Value>,
        working: impl FnOnce() -> Before,
        place: OwnedSemaphorePermit,
    ) {
        let Ordered { request, replies } = ordered;
        let (name, id) = (request.command.name(), request.id.clone());
        let restart = request.command == Command::Restart;
        let outcome = match request.command {
            Command::Status => Ok(status.await),
            Command::Update { slot, release, shadow, start } => {
                let ticket = self
                    .seeing(Some(&slot))
                    .and_then(|slot| self.updater.update_when(&slot, release, shadow, start));
                self.follow(ticket, &replies, place).await
            }
            Command::Install { slot, file, shadow, start } => {
                let ticket = match self.seeing(slot.as_ref()) {
                    Ok(slot) => self.updater.install_when(&slot, file.clone(), shadow, start).await,
                    Err(reason) => Err(reason),
                };
                let outcome = self.follow(ticket, &replies, place).await;
                if !matches!(&outcome, Err(reason) if reason.detail == GOES_ON) {
                    self.handed_over.done(&file).await;
                }
                outcome
            }
            Command::Rollback { slot } => {
                let ticket = self.sees(&slot).and_then(|()| self.updater.rollback(&slot));
                self.follow(ticket, &replies, place).await
            }
            Command::Abort { slot } => self.follow(self.updater.abort(&slot), &replies, place).await,
            Command::Snapshot { pipeline, max_edge, boxes } => {
                self.snapshot(pipeline.as_ref(), max_edge, boxes).await
            }
            Command::Pause { pipeline, paused } => self.pause(pipeline.as_ref(), paused).await,
            Command::Restart => Ok(json!({ "restarting": true })),
            Command::Set { values } => match self.set(&id, values, working(), &replies).await {
                Ok(Some(result)) => Ok(result),
                // Answered by the agent that runs with it.
                Ok(None) => return self.restart.cancel(),
                Err(reason) => Err(reason),
            },
            Command::Logs { lines, level } => {
                let found = log::newest(lines, least_important(level), MAX_LOG);
                Ok(json!({ "lines": found }))
            }
            Command::Diagnose => match self.alone("diagnose") {
                Ok(_alone) => diagnose(&self.config).await,
                Err(reason) => Err(reason),
            },
            Command::Identify { blink_s } => {
                let settings = self.settings.clone();
                blocking(move || Ok(identify(&settings, blink_s))).await
            }
            Command::Audit { lines } => self.audit.newest(lines).await,
        };
        let end = match outcome {
            Ok(result) => Progress::Successful { result },
            Err(reason) => Progress::Failed { reason },
        };
        self.audit.ended(name, id.as_str(), &end);
        replies.send(end).await;
        if restart {
            // Not before the answer is on its way: the end drops commands that have none.
            self.restart.cancel();
        }
    }

    /// Passes a deployment's progress on until its end.
    async fn follow(
        &self,
        ticket: Result<Ticket, Reason>,
        replies: &Replies,
        place: OwnedSemaphorePermit,
    ) -> Result<serde_json::Value, Reason> {
        let mut ticket = ticket?;
        // It may take days, and the command that ends it needs a place; a slot takes only so many who follow.
        drop(place);
        loop {
            let progress = ticket.borrow_and_update().clone();
            match progress {
                Progress::Executing { .. } => replies.send(progress).await,
                Progress::Successful { result } => return Ok(result),
                Progress::Failed { reason } => return Err(reason),
            }
            if ticket.changed().await.is_err() {
                return Err(Reason::new(ReasonCode::Internal, GOES_ON));
            }
        }
    }

    /// The slot that is meant, where a deployment can be judged on it.
    fn seeing(&self, slot: Option<&SlotName>) -> Result<SlotName, Reason> {
        let slot = self.device.slot(slot)?;
        self.sees(&slot)?;
        Ok(slot)
    }

    /// Fails while a person keeps the slot's source paused: a deployment is judged by frames, and would be
    /// taken back for want of them. A slot that is not here is for others to refuse.
    fn sees(&self, slot: &SlotName) -> Result<(), Reason> {
        let found = self.device.slots().find(|(here, _)| *here == slot);
        let Some((_, handle)) = found.filter(|(_, handle)| handle.status().borrow().camera.held) else {
            return Ok(());
        };
        let pipeline = &handle.plan().name;
        let detail = format!(
            "slot {slot}: the source of pipeline {pipeline} is paused by hand, and a model is judged by its \
             frames; let it go on first: `edgewarden resume {pipeline}`"
        );
        Err(Reason::new(ReasonCode::Busy, detail))
    }

    /// Fails while a deployment needs the frames of one of these slots.
    fn spares(&self, slots: &[SlotName]) -> Result<(), Reason> {
        let states = self.updater.states();
        let busy = states.iter().filter(|state| slots.contains(&state.slot)).find_map(|state| {
            let deployment = state.deployment.as_ref().filter(|deployment| !deployment.stage.is_final())?;
            Some((&state.slot, &deployment.release))
        });
        let Some((slot, release)) = busy else { return Ok(()) };
        let detail = format!(
            "slot {slot}: {release} is being brought in and needs the frames; wait for its end, or end it \
             with `edgewarden abort {slot}`"
        );
        Err(Reason::new(ReasonCode::Busy, detail))
    }

    async fn pause(
        &self,
        pipeline: Option<&PipelineName>,
        paused: bool,
    ) -> Result<serde_json::Value, Reason> {
        let camera = self.device.pipeline(pipeline)?.camera();
        // All that look at it are meant: a camera cannot be paused for one of them.
        let name = &camera.plan().name;
        let on_it = self.device.slots().filter(|(_, handle)| handle.camera().plan().name == *name);
        let (slots, names): (Vec<SlotName>, Vec<String>) =
            on_it.map(|(slot, handle)| (slot.clone(), handle.plan().name.to_string())).unzip();
        if paused {
            self.spares(&slots)?;
        }
        camera.hold(paused).await?;
        Ok(json!({ "source_of": name, "pipelines": names.join(" "), "paused": paused }))
    }

    async fn snapshot(
        &self,
        pipeline: Option<&PipelineName>,
        max_edge: u32,
        boxes: bool,
    ) -> Result<serde_json::Value, Reason> {
        let pipeline = self.device.pipeline(pipeline)?;
        let name = &pipeline.plan().name;
        let boxes = if boxes { self.outlet.boxes(name) } else { None };
        let drawn = boxes.as_ref().map(|boxes| boxes.detections.len());
        let jpeg = match boxes {
            Some(boxes) => pipeline.snapshot_with(max_edge, boxes).await?,
            None => pipeline.snapshot(max_edge).await?,
        };
        let bytes = jpeg.len();
        if let Some(mqtt) = &self.mqtt {
            mqtt.snapshot(name, jpeg.into())?;
        }
        let mut result = json!({ "pipeline": name, "bytes": bytes });
        if let Some(drawn) = drawn {
            result["boxes"] = drawn.into();
        }
        Ok(result)
    }

    /// The right to do what may be done once at a time.
    fn alone(&self, what: &str) -> Result<OwnedSemaphorePermit, Reason> {
        self.alone.clone().try_acquire_owned().map_err(|_| {
            let detail =
                format!("{what}: a check or a change of the configuration is under way; ask again later");
            Reason::new(ReasonCode::Busy, detail)
        })
    }

    /// Puts a part of the configuration on the disk, on trial. `None`: the agent must start anew, and the one that
    /// runs then answers.
    async fn set(
        &self,
        id: &CommandId,
        values: remote::Values,
        before: Before,
        replies: &Replies,
    ) -> Result<Option<serde_json::Value>, Reason> {
        let _alone = self.alone("set")?;
        let slots: Vec<SlotName> = self.device.slots().map(|(slot, _)| slot.clone()).collect();
        self.spares(&slots)?;
        let here = Remote::new(&self.config);
        let answer = match replies {
            Replies::Mqtt(replies) => Some(replies.address()),
            Replies::Local(_) => None,
        };
        let subject = self.audit.under_way("set", id.as_str()).unwrap_or_else(|| Subject {
            who: Who::Local { uid: None },
            to: self.settings.device.id.to_string(),
            command: "set".to_owned(),
            id: id.to_string(),
            arguments: serde_json::Value::Null,
        });
        let wish = Wish { values, subject, answer, before };
        match blocking(move || here.begin(wish)).await? {
            Begun::AsBefore(values) => Ok(Some(json!({ "changed": false, "values": values }))),
            Begun::OnTrial => {
                let detail = "the agent starts anew with it, and keeps it once it is well with it".to_owned();
                replies.send(Progress::Executing { detail, fraction: None }).await;
                self.audit.hand_over("set", id.as_str());
                match replies {
                    Replies::Mqtt(replies) => replies.hand_over(),
                    Replies::Local(_) => {
                        replies.send(Progress::Successful { result: json!({ "on_trial": true }) }).await;
                    }
                }
                Ok(None)
            }
        }
    }
}

fn least_important(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Error => tracing::Level::ERROR,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Trace => tracing::Level::TRACE,
    }
}
