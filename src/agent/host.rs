//! The running device as the update driver sees it: each slot is a pipeline's.

use super::assemble::OWN_PROGRAM;
use super::camera;
use super::pipeline::Handle;
use super::rebuild;
use crate::domain::deployment::{BundleRef, Observation, SwapReport, TrialReport};
use crate::domain::shadow;
use crate::domain::{PipelineName, Reason, ReasonCode, SlotName};
use crate::update::deltas::Job;
use crate::update::driver::Host;
use std::collections::BTreeMap;
use std::path::Path;
use tokio::sync::{mpsc, watch};

/// What a device says that is still to be set up.
const NONE: &str =
    "no pipeline is configured, and so there is no slot; run `sudo edgewarden setup` and restart the agent";

/// The pipelines by slot; each slot belongs to one.
pub struct Device {
    by_slot: BTreeMap<SlotName, Handle>,
    cameras: Vec<camera::Handle>,
}

impl Device {
    /// Takes the running pipelines and their cameras.
    pub fn new(cameras: Vec<camera::Handle>, pipelines: impl IntoIterator<Item = Handle>) -> Self {
        let by_slot = pipelines.into_iter().map(|handle| (handle.plan().slot.clone(), handle)).collect();
        Self { by_slot, cameras }
    }

    /// All slots with their pipelines, by the slots' names.
    pub fn slots(&self) -> impl Iterator<Item = (&SlotName, &Handle)> {
        self.by_slot.iter()
    }

    /// The pipeline with this name, or the only one where none is named.
    ///
    /// # Errors
    /// When there is no such pipeline, or several and none is named.
    pub fn pipeline(&self, name: Option<&PipelineName>) -> Result<&Handle, Reason> {
        let known = || {
            let names: Vec<&str> = self.by_slot.values().map(|handle| handle.plan().name.as_str()).collect();
            names.join(", ")
        };
        match name {
            Some(name) => self
                .by_slot
                .values()
                .find(|handle| handle.plan().name == *name)
                .ok_or_else(|| bad(format!("no pipeline {name} here; there is {}", known()))),
            None if self.by_slot.len() == 1 => self.by_slot.values().next().ok_or_else(|| bad(known())),
            None if self.by_slot.is_empty() => Err(bad(NONE.to_owned())),
            None => Err(bad(format!("name one of the pipelines: {}", known()))),
        }
    }

    /// The slot with this name, or the only one where none is named.
    ///
    /// # Errors
    /// When there is no such slot, or several and none is named.
    pub fn slot(&self, name: Option<&SlotName>) -> Result<SlotName, Reason> {
        let known = || {
            let names: Vec<&str> = self.by_slot.keys().map(SlotName::as_str).collect();
            names.join(", ")
        };
        match name {
            Some(name) if self.by_slot.contains_key(name) => Ok(name.clone()),
            _ if self.by_slot.is_empty() => Err(bad(NONE.to_owned())),
            Some(name) => Err(bad(format!("no slot {name} here; there is {}", known()))),
            None => match self.by_slot.keys().next() {
                Some(only) if self.by_slot.len() == 1 => Ok(only.clone()),
                _ => Err(bad(format!("name one of the slots: {}", known()))),
            },
        }
    }

    /// Ends all pipelines and their children.
    pub async fn stop(&self) {
        for handle in self.by_slot.values() {
            handle.stop().await;
        }
        for camera in &self.cameras {
            camera.stop().await;
        }
    }

    fn handle(&self, slot: &SlotName) -> Result<&Handle, Reason> {
        self.by_slot.get(slot).ok_or_else(|| bad(format!("no pipeline runs slot {slot}")))
    }
}

fn bad(detail: String) -> Reason {
    Reason::new(ReasonCode::BadRequest, detail)
}

impl Host for Device {
    async fn try_candidate(
        &self,
        slot: &SlotName,
        bundle: &BundleRef,
        dir: &Path,
    ) -> Result<TrialReport, Reason> {
        self.handle(slot)?.try_candidate(bundle.clone(), dir.to_path_buf()).await
    }

    async fn shadow(
        &self,
        slot: &SlotName,
        plan: shadow::Plan,
        progress: watch::Sender<shadow::Report>,
    ) -> Result<(), Reason> {
        self.handle(slot)?.shadow(plan, progress).await
    }

    async fn swap(&self, slot: &SlotName) -> Result<SwapReport, Reason> {
        self.handle(slot)?.swap().await
    }

    fn observe(&self, slot: &SlotName) -> mpsc::Receiver<Observation> {
        match self.handle(slot) {
            Ok(handle) => handle.observe(),
            // A closed channel says that nothing is seen.
            Err(_) => mpsc::channel(1).1,
        }
    }

    async fn settle(&self, slot: &SlotName) {
        if let Ok(handle) = self.handle(slot) {
            handle.settle().await;
        }
    }

    async fn serve(&self, slot: &SlotName, bundle: Option<(&BundleRef, &Path)>) -> Result<(), Reason> {
        let bundle = bundle.map(|(bundle, dir)| (bundle.clone(), dir.to_path_buf()));
        self.handle(slot)?.serve(bundle).await
    }

    async fn rebuild(&self, job: Job) -> Result<(), Reason> {
        rebuild::rebuild(Path::new(OWN_PROGRAM), job).await
    }

    fn model_fault(&self, slot: &SlotName) -> Option<Reason> {
        self.by_slot.get(slot).and_then(|handle| handle.status().borrow().model_fault.clone())
    }

    async fn discard_candidate(&self, slot: &SlotName) {
        if let Ok(handle) = self.handle(slot) {
            handle.discard().await;
        }
    }
}
