//! Carries out commands, whoever sent them, and answers each.

use super::bundles::Bundles;
use super::host::Device;
use super::local::LocalRequest;
use super::local::handover::HandedOver;
use crate::domain::command::{Command, Progress, Request};
use crate::domain::{PipelineName, Reason, ReasonCode, SlotName};
use crate::mqtt;
use crate::update::driver::{Ticket, Updater};
use serde_json::json;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::sync::CancellationToken;

/// What a command is told whose deployment outlives the agent.
const GOES_ON: &str = "the agent ends; the deployment goes on at its next start";

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

impl From<LocalRequest> for Ordered {
    fn from(local: LocalRequest) -> Self {
        Self { request: local.request, replies: Replies::Local(local.replies) }
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
}

impl Commands {
    /// Carries one command out; `status` is what `Status` answers. `place` is its place among the commands that
    /// are carried out at once.
    pub async fn execute(
        &self,
        ordered: Ordered,
        status: impl Future<Output = serde_json::Value>,
        place: OwnedSemaphorePermit,
    ) {
        let Ordered { request, replies } = ordered;
        let restart = request.command == Command::Restart;
        let outcome = match request.command {
            Command::Status => Ok(status.await),
            Command::Update { slot, release, shadow, start } => match self.device.slot(Some(&slot)) {
                Ok(slot) => match self.sees(&slot) {
                    Ok(()) => {
                        let ticket = self.updater.update_when(&slot, release, shadow, start);
                        self.follow(ticket, &replies, place).await
                    }
                    Err(reason) => Err(reason),
                },
                Err(reason) => Err(reason),
            },
            Command::Install { slot, file, shadow, start } => {
                let outcome = match self.device.slot(slot.as_ref()) {
                    Ok(slot) => match self.sees(&slot) {
                        Ok(()) => {
                            let ticket = self.updater.install_when(&slot, file.clone(), shadow, start).await;
                            self.follow(ticket, &replies, place).await
                        }
                        Err(reason) => Err(reason),
                    },
                    Err(reason) => Err(reason),
                };
                if !matches!(&outcome, Err(reason) if reason.detail == GOES_ON) {
                    self.handed_over.done(&file).await;
                }
                outcome
            }
            Command::Rollback { slot } => match self.sees(&slot) {
                Ok(()) => self.follow(self.updater.rollback(&slot), &replies, place).await,
                Err(reason) => Err(reason),
            },
            Command::Abort { slot } => self.follow(self.updater.abort(&slot), &replies, place).await,
            Command::Snapshot { pipeline, max_edge } => self.snapshot(pipeline.as_ref(), max_edge).await,
            Command::Pause { pipeline, paused } => self.pause(pipeline.as_ref(), paused).await,
            Command::Restart => Ok(json!({ "restarting": true })),
        };
        replies
            .send(match outcome {
                Ok(result) => Progress::Successful { result },
                Err(reason) => Progress::Failed { reason },
            })
            .await;
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
    ) -> Result<serde_json::Value, Reason> {
        let pipeline = self.device.pipeline(pipeline)?;
        let jpeg = pipeline.snapshot(max_edge).await?;
        let bytes = jpeg.len();
        let name = &pipeline.plan().name;
        if let Some(mqtt) = &self.mqtt {
            mqtt.snapshot(name, jpeg.into())?;
        }
        Ok(json!({ "pipeline": name, "bytes": bytes }))
    }
}
