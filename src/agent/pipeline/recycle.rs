//! What the inference children cost, and the planned replacement of one that has grown: a fresh child of
//! the same bundle is loaded at low priority and takes over as any successor does, without a lost frame.
//!
//! Only while nothing else is under way: a candidate on trial, and the standby of a probation, come first.

use super::Sink;
use super::actor::{Actor, Purpose};
use super::runner::Load;
use crate::domain::memory::{Budget, Watch};
use crate::domain::shadow::Side;
use crate::sys::background;
use crate::telemetry::process;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Between two looks while a candidate is compared.
const CLOSE_LOOK: Duration = Duration::from_millis(500);

/// A child's id, its pid, and what it costs: bytes of memory, seconds of processor time.
type Sample = (u64, u32, (u64, f64));

/// Reads the figures beside the actor, one reading at a time.
pub(super) struct Gauge {
    watch: Watch,
    period: Duration,
    begun: Instant,
    last: Instant,
    reading: bool,
    results: mpsc::Sender<Vec<Sample>>,
    inbox: mpsc::Receiver<Vec<Sample>>,
}

impl Gauge {
    pub(super) fn new(budget: Budget) -> Self {
        let (results, inbox) = mpsc::channel(1);
        let now = Instant::now();
        let (watch, period) = (Watch::new(budget), budget.period());
        Self { watch, period, begun: now, last: now, reading: false, results, inbox }
    }

    /// The next figures. Cancel-safe.
    pub(super) async fn read(&mut self) -> Option<Vec<Sample>> {
        self.inbox.recv().await
    }
}

impl<S: Sink> Actor<S> {
    /// Begins to read the figures when it is time.
    pub(super) fn look(&mut self) {
        let shadow = matches!(self.incoming, Some((_, Purpose::Shadow(_))));
        let period = if shadow { CLOSE_LOOK.min(self.gauge.period) } else { self.gauge.period };
        if self.gauge.reading || self.gauge.last.elapsed() < period {
            return;
        }
        let incoming = self.incoming.iter().filter(|_| shadow).map(|(runner, _)| runner);
        let serving = self.active.iter().filter(|active| active.is_serving());
        let children: Vec<(u64, u32)> =
            serving.chain(incoming).map(|runner| (runner.id, runner.pid())).collect();
        self.gauge.last = Instant::now();
        let results = self.gauge.results.clone();
        let reading = background::spawn_blocking(move || {
            let cost = |(id, pid)| Some((id, pid, process::cost(pid)?));
            let _ = results.blocking_send(children.into_iter().filter_map(cost).collect());
        });
        self.gauge.reading = reading.is_ok();
    }

    /// Takes the figures in.
    pub(super) async fn weighed(&mut self, samples: Vec<Sample>) {
        self.gauge.reading = false;
        for (id, pid, cost) in samples {
            let serves = self.active.as_ref().is_some_and(|active| active.id == id && active.is_serving());
            if let Some((runner, Purpose::Shadow(run))) = &mut self.incoming
                && (serves || runner.id == id)
            {
                let side = if serves { Side::Current } else { Side::Candidate };
                run.sampled(side, pid, cost);
            }
            if serves {
                self.weigh(id, cost.0).await;
            }
        }
        self.judge_shadow();
    }

    async fn weigh(&mut self, id: u64, bytes: u64) {
        let now = self.gauge.begun.elapsed();
        let needs = self.active.as_ref().map_or(0, |active| active.needs_memory);
        let Some(excess) = self.gauge.watch.observe(id, bytes, needs, now) else { return };
        let busy = self.incoming.is_some() || self.standby.is_some();
        let Some((bundle, dir)) = self.wanted.clone().filter(|_| !busy) else { return };
        self.gauge.watch.acted(now);
        match self.start_runner(Load { bundle, dir, serve_then: true, low: true }).await {
            Ok(runner) => self.incoming = Some((runner, Purpose::Recycle(excess))),
            Err(reason) => {
                tracing::warn!(pipeline = %self.plan.name, %reason, "no fresh child can be started")
            }
        }
    }
}
