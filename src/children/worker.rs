//! The way of frames through an inference child: prepared by one thread, answered by another.
//!
//! Three input tensors take turns: one in the model, one waiting for it, one being prepared. The third is
//! for models that run no longer than a frame takes to prepare: the next preparation can begin before the
//! model has taken the last one over, so neither waits for the other's jitter. With a second core the
//! model has a thread of its own, and [`Ahead`] says when the next frame is to be taken while it runs;
//! without one, [`Worker::submit`] runs the model on the caller's thread. Either way a
//! frame that could not be prepared, or that is passed over, takes the same way, so that this is told in
//! its turn. Whether a frame is too old is asked once more when the model is free for it.

use crate::children::link::{Gone, Waker};
use crate::children::outbox::{Outbox, Ticket};
use crate::domain::Reason;
use crate::domain::ahead::Ahead;
use crate::domain::ledger::Skip;
use crate::inference::engine::{Executor, Prepared};
use crate::inference::session::Input;
use crate::sys::monotonic;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A frame on its way to the model.
pub struct Job {
    /// Which one.
    pub ticket: Ticket,
    /// Holds it, where it is ready.
    pub input: Input,
    /// How far it came.
    pub stage: Stage,
    /// From this moment on (`CLOCK_MONOTONIC`, nanoseconds) it is too old to be run.
    pub stale_from: u64,
}

/// How far a frame came.
pub enum Stage {
    /// It is in the tensor.
    Ready(Prepared),
    /// It could not be prepared.
    Failed(Reason),
    /// The model is not to be run on it.
    Passed(Skip),
}

/// Whether a frame is to be taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Take one.
    Now,
    /// A newer one may come, and there is time for it.
    Later(Duration),
    /// One waits for the model.
    Full,
}

/// Runs the model: what the thread that prepares and the thread of the model share.
pub struct Worker<'a> {
    executor: &'a Mutex<Executor>,
    outbox: &'a Mutex<Outbox>,
    /// Wakes the thread that prepares.
    waker: Waker,
    /// True when the model has a thread of its own.
    apart: bool,
    state: Mutex<State>,
    /// Wakes the thread of the model.
    more: Condvar,
}

struct State {
    spare: Vec<Input>,
    /// In the order of the frames; as many as there are tensors at most.
    waiting: VecDeque<Job>,
    /// Since when the model runs.
    began: Option<Instant>,
    ahead: Ahead,
    ended: bool,
}

/// What a thread that panicked leaves is as good as ever: it is changed in single steps.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Worker<'a> {
    /// With `spare` as the tensors beside the model's own; `apart` when [`Worker::work`] will be called by
    /// another thread.
    pub fn new(
        executor: &'a Mutex<Executor>,
        outbox: &'a Mutex<Outbox>,
        spare: Vec<Input>,
        waker: Waker,
        apart: bool,
    ) -> Self {
        let waiting = VecDeque::with_capacity(spare.len());
        let state = State { spare, waiting, began: None, ahead: Ahead::default(), ended: false };
        Self { executor, outbox, waker, apart, state: Mutex::new(state), more: Condvar::new() }
    }

    /// Whether a frame is to be taken now.
    pub fn turn(&self) -> Turn {
        let state = lock(&self.state);
        if state.spare.is_empty() {
            return Turn::Full;
        }
        let wait = match (state.began, state.waiting.len()) {
            (None, 0) => return Turn::Now,
            // The model is about to take it, and rings then.
            (None, _) => return Turn::Full,
            (Some(began), waiting) => {
                Duration::from_nanos(state.ahead.wait(waiting as u64)).checked_sub(began.elapsed())
            }
        };
        match wait {
            Some(rest) if !rest.is_zero() => Turn::Later(rest),
            Some(_) | None => Turn::Now,
        }
    }

    /// The tensor to prepare a frame in; it comes back with [`Worker::submit`].
    pub fn take_spare(&self) -> Option<Input> {
        lock(&self.state).spare.pop()
    }

    /// Hands a frame over that took `spent` to prepare, where that was tried.
    ///
    /// # Errors
    /// When nobody listens for the answer.
    pub fn submit(&self, job: Job, spent: Option<Duration>) -> Result<(), Gone> {
        if !self.apart {
            return self.run(job);
        }
        let mut state = lock(&self.state);
        if let Some(spent) = spent {
            state.ahead.prepared(u64::try_from(spent.as_nanos()).unwrap_or(u64::MAX));
        }
        state.waiting.push_back(job);
        self.more.notify_one();
        Ok(())
    }

    /// Answers frames until [`Worker::end`].
    pub fn work(&self) {
        let _end = EndOnDrop(self);
        loop {
            let mut state = lock(&self.state);
            let job = loop {
                if state.ended {
                    return;
                }
                match state.waiting.pop_front() {
                    Some(job) => break job,
                    None => state = self.more.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            };
            drop(state);
            if let Err(Gone) = self.run(job) {
                return;
            }
        }
    }

    /// The thread of the model is to end, or has.
    pub fn end(&self) {
        lock(&self.state).ended = true;
        self.more.notify_one();
        self.waker.wake();
    }

    /// True once the thread of the model has no reason to be there.
    pub fn has_ended(&self) -> bool {
        lock(&self.state).ended
    }

    fn run(&self, Job { ticket, mut input, stage, stale_from }: Job) -> Result<(), Gone> {
        if !lock(self.outbox).wants(&ticket) {
            self.give_back(input, None);
            return Ok(());
        }
        let stage = match stage {
            Stage::Ready(_) if monotonic::now_ns() > stale_from => Stage::Passed(Skip::Stale),
            stage => stage,
        };
        let result = match stage {
            Stage::Ready(prepared) => {
                let mut executor = lock(self.executor);
                executor.exchange(&mut input);
                self.give_back(input, Some(Instant::now()));
                executor.answer(&prepared)
            }
            Stage::Failed(reason) => {
                self.give_back(input, None);
                Err(reason)
            }
            Stage::Passed(why) => {
                self.give_back(input, None);
                return lock(self.outbox).pass(&ticket, why);
            }
        };
        let good = result.is_ok();
        let said = lock(self.outbox).answer(&ticket, result);
        let mut state = lock(&self.state);
        if let Some(began) = state.began.take()
            && good
        {
            state.ahead.ran(u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX));
        }
        drop(state);
        self.wake();
        said
    }

    fn give_back(&self, input: Input, began: Option<Instant>) {
        let mut state = lock(&self.state);
        state.spare.push(input);
        state.began = began;
        drop(state);
        self.wake();
    }

    fn wake(&self) {
        if self.apart {
            self.waker.wake();
        }
    }
}

/// So that a panic does not leave the other thread waiting for ever.
struct EndOnDrop<'l, 'a>(&'l Worker<'a>);

impl Drop for EndOnDrop<'_, '_> {
    fn drop(&mut self) {
        self.0.end();
    }
}
