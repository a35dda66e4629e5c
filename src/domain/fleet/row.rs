//! A device in one line: what a table of many shows.

use super::{Deployment, DeviceView, Fleet, Presence, Problem};
use crate::domain::id::{DeviceId, SlotName};
use serde::Serialize;
use std::cmp::Reverse;

/// A device in one line.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    /// The device.
    pub device: DeviceId,
    /// Whether it is there.
    pub presence: Presence,
    /// How it is, as it last said: `ok`, `degraded`, `failed`.
    pub state: Option<String>,
    /// What its slots run.
    pub models: Vec<Model>,
    /// Answered frames per second of all its pipelines.
    pub frames_per_second: Option<f64>,
    /// Its hottest part.
    pub temperature_celsius: Option<f64>,
    /// What is worst, or wrong with its messages.
    pub problem: Option<Problem>,
    /// The newest deployment of each slot.
    pub deployments: Vec<SlotDeployment>,
    /// The groups whose commands it obeys.
    pub groups: Vec<String>,
    /// Version of its agent.
    pub agent_version: Option<String>,
    /// Seconds since its newest sign of life, where that can be told.
    pub age_s: Option<i64>,
}

/// What a slot runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Model {
    /// The slot.
    pub slot: SlotName,
    /// The release; `None` for nothing.
    pub release: Option<String>,
}

/// A slot's deployment.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SlotDeployment {
    /// The slot.
    pub slot: SlotName,
    /// The deployment.
    #[serde(flatten)]
    pub deployment: Deployment,
}

impl Row {
    /// Sums a device up.
    pub fn of(device: &DeviceId, view: &DeviceView, now_ms: i64, stale_ms: i64) -> Self {
        let health = view.health.as_ref();
        let fps: Vec<f64> = health
            .into_iter()
            .flat_map(|health| &health.pipelines)
            .filter_map(|pipeline| pipeline.fps)
            .collect();
        let deployments = view.slots.iter().filter_map(|(slot, known)| {
            let deployment = known.deployment.clone()?;
            Some(SlotDeployment { slot: slot.clone(), deployment })
        });
        Self {
            device: device.clone(),
            presence: view.presence(now_ms, stale_ms),
            state: health.and_then(|health| health.state.clone()),
            models: view
                .slots
                .iter()
                .map(|(slot, known)| Model { slot: slot.clone(), release: known.current.clone() })
                .collect(),
            frames_per_second: (!fps.is_empty()).then(|| fps.iter().sum()),
            temperature_celsius: health.and_then(|health| health.temperature),
            problem: worst(view),
            deployments: deployments.collect(),
            groups: view.birth.as_ref().map(|birth| birth.groups.clone()).unwrap_or_default(),
            agent_version: view.birth.as_ref().and_then(|birth| birth.agent_version.clone()),
            age_s: view.age_ms(now_ms).map(|age| age / 1000),
        }
    }

    /// Whether nothing wants attention: it is there, and says that it is well.
    pub fn is_well(&self) -> bool {
        self.presence == Presence::Online && self.state.as_deref() == Some("ok")
    }

    /// How bad it is; the worst is the least.
    fn badness(&self) -> (Presence, u8) {
        let state = match self.state.as_deref() {
            Some("failed") => 0,
            Some("degraded") => 1,
            None => 2,
            Some("ok") => 4,
            Some(_) => 3,
        };
        (self.presence, state)
    }
}

/// What to tell first: messages that are not what they should be, then what the device itself calls worst, then
/// the error of a pipeline, then a deployment that ended badly.
fn worst(view: &DeviceView) -> Option<Problem> {
    let own = |code: &str, detail: String| Problem { code: code.to_owned(), detail };
    if let Some(claims) = &view.claims {
        return Some(own(
            "other_id",
            format!("its messages give the device id \"{claims}\"; its topic counts"),
        ));
    }
    if !view.unreadable.is_empty() {
        let kinds: Vec<&str> = view.unreadable.iter().copied().collect();
        return Some(own("unreadable", format!("what it says at {} makes no sense", kinds.join(", "))));
    }
    let health = view.health.as_ref();
    let told = health.and_then(|health| health.problems.first());
    let error = || health?.pipelines.iter().find_map(|pipeline| pipeline.last_error.as_ref());
    let deployment = || {
        let failed = view.slots.values().filter_map(|slot| slot.deployment.as_ref());
        failed.filter(|deployment| deployment.failed()).find_map(|deployment| deployment.reason.as_ref())
    };
    told.or_else(error).or_else(deployment).cloned()
}

/// Which devices are shown; all that are asked for must hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Those of any of these groups; all where there is none.
    pub groups: Vec<String>,
    /// Those that are not online.
    pub offline: bool,
    /// Those that are not well.
    pub problem: bool,
}

impl Filter {
    /// Whether a device is shown.
    pub fn shows(&self, row: &Row) -> bool {
        (self.groups.is_empty() || row.groups.iter().any(|group| self.groups.contains(group)))
            && (!self.offline || row.presence != Presence::Online)
            && (!self.problem || !row.is_well())
    }
}

/// What the rows are sorted by; where that is the same, by the device's id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The device's id.
    #[default]
    Device,
    /// The worst first.
    Problem,
    /// What its slots run.
    Model,
    /// The slowest first.
    Rate,
    /// The hottest first.
    Temperature,
}

/// The rows of the devices that are shown.
pub fn rows(fleet: &Fleet, filter: &Filter, order: Order, now_ms: i64, stale_ms: i64) -> Vec<Row> {
    let all = fleet.devices().iter().map(|(device, view)| Row::of(device, view, now_ms, stale_ms));
    let mut rows: Vec<Row> = all.filter(|row| filter.shows(row)).collect();
    // They come by id, and sorting keeps the order of what is the same. Numbers in thousandths: none is NaN.
    let thousandths = |number: Option<f64>| number.map(|number| (number * 1000.0) as i64);
    match order {
        Order::Device => {}
        Order::Problem => rows.sort_by_key(Row::badness),
        Order::Model => {
            rows.sort_by_cached_key(|row| {
                row.models.iter().map(|model| model.release.clone()).collect::<Vec<_>>()
            });
        }
        Order::Rate => rows.sort_by_key(|row| thousandths(row.frames_per_second)),
        Order::Temperature => rows.sort_by_key(|row| Reverse(thousandths(row.temperature_celsius))),
    }
    rows
}
