//! Shadow running: a candidate answers the same live frames as the model that serves, and nobody but
//! this judge sees its answers. Pure: answers and figures come in, a report and a verdict go out.
//!
//! Answers are paired by the frame's number. Both models pass frames over when they are busy, and the
//! candidate runs at low priority, so many answers find no partner: what waits for one is bounded in
//! number and in size, and the oldest goes first.
//!
//! Three things are compared, each where the models give it: boxes (matched by label and overlap), the
//! best class of the picture, and undecoded values. Labels are compared and not class numbers, because
//! a new model may number its classes anew. The agreement is that of the worst of the three.
//!
//! Time is compared by processor seconds per frame where both models run on the processor: a candidate
//! at low priority waits for it, and that wait is not the model's. Where one of them runs elsewhere the
//! median of the wall-clock time is compared.

mod agreement;
mod plan;

pub use plan::{Plan, ShadowWish};

use self::agreement::{distance, matched};
use super::manifest::Provider;
use super::reason::{Reason, ReasonCode};
use super::result::{Classification, Output};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::time::Duration;

/// Answers of one side that may wait for their partner.
const MAX_HELD: usize = 32;
/// Undecoded values of one side that may wait, all answers together.
const MAX_VALUES: usize = 1 << 20;
/// Newest times per frame that are kept.
const MAX_TIMES: usize = 1000;
/// Answers of the candidate before its errors are judged, or all that are asked for where those are fewer.
const MIN_JUDGED: u64 = 20;

/// What a model costs, seen while both ran.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Cost {
    /// Median milliseconds per frame, all stages, by the clock on the wall.
    pub p50_ms: f32,
    /// 95 of 100 frames took at most so long.
    pub p95_ms: f32,
    /// Milliseconds of processor time per frame, where it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<f32>,
    /// The most memory that its process was seen with, bytes (shared pages by share where the kernel
    /// tells it).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// What was found so far: a part of the deployment's state, and of its outcome.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Frames that both models answered.
    pub frames: u64,
    /// Frames that were asked for.
    pub needed: u64,
    /// Share, 0 to 1, in which the models agree: the worst of what was compared.
    pub agreement: f32,
    /// Boxes of the larger answers, and how many of them have a counterpart of the same label in the
    /// other answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boxes: Option<[u64; 2]>,
    /// Frames that were given a class, and those of them with the same best class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top1: Option<[u64; 2]>,
    /// Mean distance of undecoded values in proportion to their size; 0 is equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_distance: Option<f32>,
    /// Frames that the candidate could not answer.
    pub errors: u64,
    /// The model that serves.
    pub current: Cost,
    /// The candidate.
    pub candidate: Cost,
    /// Times the serving model's time per frame that the candidate needs, where it is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slowdown: Option<f32>,
}

/// What is known so far.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// Not decided.
    Watching,
    /// Good enough to be swapped in.
    Passed,
    /// Not good enough, and why.
    Failed(Reason),
}

/// Which model an answer or a figure is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// The one that serves.
    Current,
    /// The one in its shadow.
    Candidate,
}

#[derive(Debug, Default)]
struct Model {
    /// Answers that wait for the other side's.
    held: VecDeque<(u64, Output)>,
    times: VecDeque<f32>,
    answered: u64,
    provider: Option<Provider>,
    memory: Option<u64>,
    /// Process, its processor seconds and its answers at the first look, and the same at the newest.
    cpu: Option<(u32, [f64; 2], [u64; 2])>,
    /// Milliseconds of processor time and answers of its processes before the present one.
    cpu_before: (f64, u64),
}

impl Model {
    fn hold(&mut self, seq: u64, output: Output) {
        self.held.push_back((seq, output));
        let values = |held: &VecDeque<(u64, Output)>| {
            held.iter()
                .flat_map(|(_, output)| &output.tensors)
                .map(|tensor| tensor.values.len())
                .sum::<usize>()
        };
        while self.held.len() > MAX_HELD || (self.held.len() > 1 && values(&self.held) > MAX_VALUES) {
            self.held.pop_front();
        }
    }

    fn take(&mut self, seq: u64) -> Option<Output> {
        let at = self.held.iter().position(|(held, _)| *held == seq)?;
        let found = self.held.remove(at);
        // Numbers rise: what is older will find no partner any more.
        self.held.drain(..at);
        found.map(|(_, output)| output)
    }

    fn cost(&self) -> Cost {
        let mut times: Vec<f32> = self.times.iter().copied().collect();
        times.sort_by(f32::total_cmp);
        let at = |share: f32| {
            let index = ((times.len() as f32 * share) as usize).min(times.len().saturating_sub(1));
            times.get(index).copied().unwrap_or_default()
        };
        Cost { p50_ms: at(0.5), p95_ms: at(0.95), cpu_ms: self.cpu_ms(), memory_bytes: self.memory }
    }

    fn cpu_ms(&self) -> Option<f32> {
        let (_, [first, last], [before, after]) = self.cpu?;
        let (ms, frames) = self.cpu_before;
        let (ms, frames) = (ms + (last - first) * 1000.0, frames + (after - before));
        // A handful of frames may stand between two looks.
        (frames >= 10).then(|| (ms / frames as f64) as f32)
    }
}

/// The judge of one shadow run.
#[derive(Debug)]
pub struct Shadow {
    plan: Plan,
    elapsed: Duration,
    current: Model,
    candidate: Model,
    frames: u64,
    boxes: [u64; 2],
    top1: [u64; 2],
    distance: (f64, u64),
    errors: u64,
    last_error: Option<Reason>,
}

impl Shadow {
    /// Starts with nothing seen.
    pub fn new(plan: Plan) -> Self {
        Self {
            plan,
            elapsed: Duration::ZERO,
            current: Model::default(),
            candidate: Model::default(),
            frames: 0,
            boxes: [0; 2],
            top1: [0; 2],
            distance: (0.0, 0),
            errors: 0,
            last_error: None,
        }
    }

    /// The provider that runs a side.
    pub fn provider(&mut self, side: Side, provider: Provider) {
        self.model(side).provider = Some(provider);
    }

    /// A side answered a frame; `total_ms` is the time of all stages.
    pub fn answered(&mut self, side: Side, seq: u64, output: &Output, total_ms: f32) {
        let model = self.model(side);
        model.answered += 1;
        if model.times.len() == MAX_TIMES {
            model.times.pop_front();
        }
        model.times.push_back(total_ms);
        let other = match side {
            Side::Current => self.candidate.take(seq),
            Side::Candidate => self.current.take(seq),
        };
        match other {
            Some(other) => self.compare(&other, output),
            None => self.model(side).hold(seq, output.clone()),
        }
    }

    /// The candidate could not answer a frame.
    pub fn failed(&mut self, reason: &Reason) {
        self.errors += 1;
        self.last_error = Some(reason.clone());
    }

    /// The process of a side was seen with so much memory and processor time since its start.
    pub fn sampled(&mut self, side: Side, pid: u32, memory: u64, cpu_seconds: f64) {
        let model = self.model(side);
        model.memory = model.memory.max(Some(memory));
        let answered = model.answered;
        match &mut model.cpu {
            Some((known, [_, last], [_, after])) if *known == pid => {
                (*last, *after) = (cpu_seconds, answered)
            }
            // The first, or one that was started again: its loading is not counted.
            other => {
                if let Some((_, [first, last], [before, after])) = other {
                    model.cpu_before.0 += (*last - *first) * 1000.0;
                    model.cpu_before.1 += *after - *before;
                }
                *other = Some((pid, [cpu_seconds; 2], [answered; 2]));
            }
        }
    }

    /// So much time has passed since the beginning.
    pub fn tick(&mut self, elapsed: Duration) {
        self.elapsed = self.elapsed.max(elapsed);
    }

    /// What was found so far.
    pub fn report(&self) -> Report {
        let share = |[same, of]: [u64; 2]| if of == 0 { 1.0 } else { same as f32 / of as f32 };
        let distance = (self.distance.1 > 0).then(|| (self.distance.0 / self.distance.1 as f64) as f32);
        let agreement = share(self.boxes)
            .min(share(self.top1))
            .min(distance.map_or(1.0, |distance| (1.0 - distance).clamp(0.0, 1.0)));
        let (current, candidate) = (self.current.cost(), self.candidate.cost());
        let turned = |[same, of]: [u64; 2]| (of > 0).then_some([of, same]);
        Report {
            frames: self.frames,
            needed: self.plan.frames,
            agreement,
            boxes: turned(self.boxes),
            top1: turned(self.top1),
            value_distance: distance,
            errors: self.errors,
            current,
            candidate,
            slowdown: self.times(&current, &candidate).map(|(before, now)| now / before.max(0.001)),
        }
    }

    /// The verdict on what was found so far.
    pub fn verdict(&self) -> Verdict {
        let plan = &self.plan;
        let report = self.report();
        let failed = |code, detail: String| Verdict::Failed(Reason::new(code, format!("shadow: {detail}")));
        let judged = self.candidate.answered + self.errors;
        let allowed = f64::from(plan.max_error_ratio) * judged.max(plan.frames) as f64;
        if judged >= MIN_JUDGED.min(plan.frames) && self.errors as f64 > allowed {
            let last = self.last_error.as_ref().map_or("", |reason| reason.detail.as_str());
            let detail = format!("{} of {judged} frames ended in an error; the last: {last}", self.errors);
            return failed(ReasonCode::TooManyErrors, detail);
        }
        const MIB: u64 = 1 << 20;
        if let Some(memory) = report.candidate.memory_bytes
            && plan.max_memory > 0
            && memory > plan.max_memory
        {
            let (seen, most) = (memory.div_ceil(MIB), plan.max_memory / MIB);
            let detail = format!("the model takes {seen} MiB of memory, {most} MiB are allowed");
            return failed(ReasonCode::TooMuchMemory, detail);
        }
        if self.frames < plan.frames {
            if self.elapsed < plan.max_time {
                return Verdict::Watching;
            }
            let secs = self.elapsed.as_secs_f32();
            let detail = format!(
                "only {} of {} frames were answered by both models in {secs:.0} s ({} by the one that serves, {} by \
                 the candidate); ask for fewer frames or for more time",
                self.frames, plan.frames, self.current.answered, self.candidate.answered
            );
            return failed(ReasonCode::TooSlow, detail);
        }
        if report.agreement < plan.min_agreement {
            let mut of = Vec::new();
            if let Some([all, same]) = report.boxes {
                of.push(format!("{same} of {all} boxes match"));
            }
            if let Some([all, same]) = report.top1 {
                of.push(format!("{same} of {all} best classes are equal"));
            }
            if let Some(distance) = report.value_distance {
                of.push(format!("values are {distance:.3} apart"));
            }
            let detail = format!(
                "agreement with the model that serves is {:.2} over {} frames ({}), needed {}",
                report.agreement,
                self.frames,
                of.join(", "),
                plan.min_agreement
            );
            return failed(ReasonCode::Disagrees, detail);
        }
        if let Some((before, now)) = self.times(&report.current, &report.candidate) {
            let limit = (before * plan.max_slowdown).max(plan.slow_floor_ms);
            // A time that is no number counts as slow.
            if now.is_nan() || now > limit {
                let detail = format!(
                    "{now:.1} ms per frame, allowed {limit:.1} ms ({:.1} ms of the model that serves × {})",
                    before, plan.max_slowdown
                );
                return failed(ReasonCode::TooSlow, detail);
            }
        }
        Verdict::Passed
    }

    /// Milliseconds per frame of both that may be compared: the serving model's, the candidate's.
    fn times(&self, current: &Cost, candidate: &Cost) -> Option<(f32, f32)> {
        let on_processor =
            [&self.current, &self.candidate].iter().all(|model| model.provider == Some(Provider::Cpu));
        if on_processor {
            // Without these figures probation is left to judge the time.
            return current.cpu_ms.zip(candidate.cpu_ms);
        }
        let seen = !self.current.times.is_empty() && !self.candidate.times.is_empty();
        seen.then_some((current.p50_ms, candidate.p50_ms))
    }

    fn compare(&mut self, one: &Output, other: &Output) {
        self.frames += 1;
        let most = one.detections.len().max(other.detections.len());
        self.boxes[0] += matched(&one.detections, &other.detections) as u64;
        self.boxes[1] += most as u64;
        if !one.classes.is_empty() || !other.classes.is_empty() {
            let best = |all: &[Classification]| all.first().map(|best| best.label.clone());
            self.top1[0] += u64::from(best(&one.classes) == best(&other.classes));
            self.top1[1] += 1;
        }
        if !one.tensors.is_empty() || !other.tensors.is_empty() {
            self.distance.0 += distance(&one.tensors, &other.tensors);
            self.distance.1 += 1;
        }
    }

    fn model(&mut self, side: Side) -> &mut Model {
        match side {
            Side::Current => &mut self.current,
            Side::Candidate => &mut self.candidate,
        }
    }
}

#[cfg(test)]
mod tests;
