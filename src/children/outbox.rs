//! Where answers leave an inference child: the account of its frames, and the way to the agent. Both its
//! threads come here, one at a time, so what the agent hears is in order.

use crate::children::link::{Answers, Gone};
use crate::domain::ledger::Skip;
use crate::domain::window::{Closed, Verdict, Window};
use crate::domain::{FrameMeta, FrameResult, Output, Reason, ReasonCode, StageTimes};
use crate::process::protocol::FromInfer;
use crate::sys::monotonic;

/// A frame that the model is to answer.
#[derive(Debug, Clone, Copy)]
pub struct Ticket {
    /// Of which window: one that was closed meanwhile wants it no more.
    window: u64,
    meta: FrameMeta,
}

/// The account and the way out.
pub struct Outbox {
    answers: Answers,
    /// Open between a start and a stop.
    window: Option<Window>,
    /// Windows opened so far.
    opened: u64,
}

impl Outbox {
    /// Closed; answers go this way.
    pub fn new(answers: Answers) -> Self {
        Self { answers, window: None, opened: 0 }
    }

    /// Says one thing that has nothing to do with frames.
    pub fn say(&mut self, message: &FromInfer) -> Result<(), Gone> {
        self.answers.say(message)
    }

    /// True between a start and a stop.
    pub fn is_open(&self) -> bool {
        self.window.is_some()
    }

    /// Answers frames from `from` on; those below `gone_by` can no longer be had.
    pub fn start(&mut self, from: u64, gone_by: u64) -> Result<(), Gone> {
        let from = match &mut self.window {
            Some(window) => {
                window.go_on();
                window.next()
            }
            None => {
                self.opened += 1;
                self.window.insert(Window::open(from, gone_by)).next()
            }
        };
        self.answers.say(&FromInfer::Started { from })
    }

    /// Answers no frame from `until` on.
    pub fn stop(&mut self, until: u64) -> Result<(), Gone> {
        let closed = match &mut self.window {
            Some(window) => window.stop(until),
            None => Some(Closed { until, skipped: 0 }),
        };
        closed.map_or(Ok(()), |closed| self.closed(closed))
    }

    /// Enters a frame that was seen; gives a ticket when the model is to answer it.
    pub fn enter(&mut self, meta: FrameMeta) -> Result<Option<Ticket>, Gone> {
        let Some(window) = &mut self.window else { return Ok(None) };
        match window.see(meta.seq) {
            Verdict::Ignore | Verdict::Beyond => Ok(None),
            Verdict::Closed(closed) => self.closed(closed).map(|()| None),
            Verdict::Run => {
                window.begin(meta.seq);
                Ok(Some(Ticket { window: self.opened, meta }))
            }
        }
    }

    /// False when the window closed before the frame: it is left to the next model.
    pub fn wants(&self, ticket: &Ticket) -> bool {
        self.window.is_some() && ticket.window == self.opened
    }

    /// Answers a frame, if it is still wanted.
    pub fn answer(
        &mut self,
        ticket: &Ticket,
        result: Result<(Output, StageTimes), Reason>,
    ) -> Result<(), Gone> {
        if !self.wants(ticket) {
            return Ok(());
        }
        let Some(window) = &mut self.window else { return Ok(()) };
        let seq = ticket.meta.seq;
        let answered = window.answered(seq);
        let result = judge(result, &ticket.meta);
        let message = FromInfer::Frame { seq, skipped: answered.skipped, result };
        if let Err(error) = self.answers.try_say(&message)? {
            let detail = format!("frame {seq}: the answer cannot be sent: {error}; pass on fewer outputs");
            let result = Err(Reason::new(ReasonCode::Unsupported, detail));
            self.answers.say(&FromInfer::Frame { seq, skipped: answered.skipped, result })?;
        }
        answered.closed.map_or(Ok(()), |closed| self.closed(closed))
    }

    /// Tells that the model is not run on a frame, if it is still wanted.
    pub fn pass(&mut self, ticket: &Ticket, why: Skip) -> Result<(), Gone> {
        if !self.wants(ticket) {
            return Ok(());
        }
        let Some(window) = &mut self.window else { return Ok(()) };
        let seq = ticket.meta.seq;
        let passed = window.answered(seq);
        self.answers.say(&FromInfer::Passed { seq, skipped: passed.skipped, why })?;
        passed.closed.map_or(Ok(()), |closed| self.closed(closed))
    }

    fn closed(&mut self, Closed { until, skipped }: Closed) -> Result<(), Gone> {
        self.window = None;
        self.answers.say(&FromInfer::Stopped { until, skipped })
    }
}

/// The model's answer with its frame's data; numbers that are none are an error, also because a message
/// cannot carry them.
fn judge(result: Result<(Output, StageTimes), Reason>, meta: &FrameMeta) -> Result<FrameResult, Reason> {
    let (output, timing_ms) = result?;
    if !is_finite(&output) {
        let detail = format!("frame {}: the model's answer holds NaN or infinity", meta.seq);
        return Err(Reason::new(ReasonCode::NotFinite, detail));
    }
    let latency_ns = monotonic::now_ns().saturating_sub(meta.captured_mono_ns);
    Ok(FrameResult {
        seq: meta.seq,
        captured_unix_ns: meta.captured_unix_ns,
        latency_ms: (latency_ns as f64 / 1e6) as f32,
        size: [meta.width, meta.height],
        output,
        timing_ms,
    })
}

fn is_finite(output: &Output) -> bool {
    let boxes = output.detections.iter().all(|d| d.score.is_finite() && d.bbox.iter().all(|v| v.is_finite()));
    let classes = output.classes.iter().all(|c| c.score.is_finite());
    boxes && classes && output.tensors.iter().all(|t| t.values.iter().all(|v| v.is_finite()))
}
