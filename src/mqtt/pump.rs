//! The one task that publishes what must arrive, so that its order is the order it was said in.
//!
//! Write first: a message from the intake is made durable in the spool before it is published (where its
//! store refuses, it is kept in memory and published all the same), and removed at its `PUBACK`. At most
//! [`WINDOW`] are on their way. Where a session is lost, the window is let run empty and the spool is sent
//! again from its oldest message: a consumer may see doubles (drop them by message id), but the newest
//! state of a retained topic is what stays there.
//!
//! After each connect the device presents itself anew: `availability`, `birth`, and the newest of
//! every retained topic, as the broker may have forgotten them.

use super::client::Connection;
use super::message::{Message, PublishError};
use super::payloads::{self, DroppedReport, OFFLINE, ONLINE, Stamper};
use super::spool::{Spool, Spooled};
use crate::domain::importance::{Dropped, Importance};
use crate::sys::blocking::blocking;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;

/// Spooled messages on their way at once.
const WINDOW: usize = 32;
/// Messages that are made durable by one sync at most.
const BATCH: usize = 256;
/// Before what could not be queued is tried again.
const SOON: Duration = Duration::from_millis(100);
/// Before what the broker could not take is tried again.
const LATER: Duration = Duration::from_secs(5);
/// Before it is made durable that something has arrived, where no new message does that on the way.
const TIDY: Duration = Duration::from_secs(5);

/// Between two words about what was dropped: a broker may refuse even these.
const TELL: Duration = Duration::from_secs(60);

/// What the pump is told, in the order it was said.
pub(super) enum Order {
    /// Must arrive.
    Spool(Spooled),
    /// The newest payload of a retained topic; it may be missed when a newer one follows.
    Newest {
        /// Topic.
        topic: String,
        /// Payload.
        payload: Vec<u8>,
    },
    /// To be answered once all that was said before is in the spool: whether it would survive a power cut.
    Accepted(oneshot::Sender<bool>),
    /// Somebody said `offline` in our name, such as a broker with a will that came late.
    Online,
}

impl Order {
    /// What its loss counts as.
    pub(super) fn class(&self) -> Importance {
        match self {
            Order::Spool(message) => message.class,
            Order::Newest { .. } | Order::Accepted(_) | Order::Online => Importance::Health,
        }
    }
}

/// What the pump says by itself.
pub(super) struct Own {
    /// Topic of `online` and `offline`.
    pub(super) availability: String,
    /// Topic of the count of dropped messages.
    pub(super) dropped: String,
    pub(super) stamper: Arc<Stamper>,
}

/// The newest payload of a retained topic.
struct Newest {
    payload: Vec<u8>,
    /// True while it still has to be published outside the spool.
    pending: bool,
}

/// What the pump has done, for the metrics.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) spool_len: AtomicU64,
    pub(super) spool_bytes: AtomicU64,
    pub(super) published: AtomicU64,
    /// Dropped by the spool, and before they reached it.
    dropped: Mutex<[Dropped; 2]>,
}

impl Counters {
    /// A message that had to arrive did not even reach the spool.
    pub(super) fn lost(&self, class: Importance) {
        self.by_both()[1].add(class, 1);
    }

    /// Messages dropped since the agent started.
    pub(super) fn dropped(&self) -> Dropped {
        let [mut all, before] = *self.by_both();
        Importance::ALL.into_iter().for_each(|class| all.add(class, before.of(class)));
        all
    }

    fn by_both(&self) -> MutexGuard<'_, [Dropped; 2]> {
        self.dropped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is on its way.
enum Sent {
    /// A spooled message, by its id.
    Spooled(u64),
    /// What is published anew after each connect anyway.
    Presence,
}

/// What was on its way, and how that ended.
type Ended = (Sent, Result<(), PublishError>);

/// The task's state.
pub(super) struct Pump {
    connection: Arc<Connection>,
    intake: mpsc::Receiver<Order>,
    counters: Arc<Counters>,
    own: Own,
    shelf: Shelf,
    newest: BTreeMap<String, Newest>,
    on_the_way: FuturesUnordered<BoxFuture<'static, Ended>>,
    /// Ids that have arrived and are still to be removed.
    arrived: Vec<u64>,
    /// Ids on their way.
    busy: HashSet<u64>,
    /// The newest id that was sent.
    cursor: u64,
    /// Something before the cursor was not acknowledged: start over once nothing is on its way.
    rewind: bool,
    /// Nothing is sent before.
    pause: Option<Instant>,
    /// While the spool's store refuses: when to ask it again.
    mend: Option<Instant>,
    /// While something was removed and would come again after a kill: when to make that durable.
    tidy: Option<Instant>,
    /// The dropped messages that were told.
    told: Dropped,
    told_at: Option<Instant>,
    /// The connection that knows who we are.
    presented: u64,
    /// `online` has to be said again.
    contradicted: bool,
}

impl Pump {
    pub(super) fn new(
        connection: Arc<Connection>,
        intake: mpsc::Receiver<Order>,
        counters: Arc<Counters>,
        own: Own,
        spool: Spool,
    ) -> Self {
        Self {
            connection,
            intake,
            shelf: Shelf::new(spool, counters.clone()),
            counters,
            own,
            newest: BTreeMap::new(),
            on_the_way: FuturesUnordered::new(),
            arrived: Vec::new(),
            busy: HashSet::new(),
            cursor: 0,
            rewind: false,
            pause: None,
            mend: None,
            tidy: None,
            told: Dropped::default(),
            told_at: None,
            presented: 0,
            contradicted: false,
        }
    }

    /// Runs until `stop` gives a deadline: then what waits is sent while there is time and a
    /// connection, `offline` is said, and the connection closed. Where `stop` is dropped, the
    /// connection is cut, and the broker says `offline` for us.
    pub(super) async fn run(mut self, mut stop: oneshot::Receiver<Instant>) {
        let mut watch = self.connection.state();
        let mut ending: Option<Ending> = None;
        loop {
            self.mind_the_store();
            self.tell_what_was_dropped().await;
            let up = watch.borrow_and_update().generation();
            if let Some(generation) = up {
                self.send(generation).await;
            }
            if let Some(ending) = &ending {
                let done = self.busy.is_empty() && self.shelf.look().is_empty();
                if done || up.is_none() || Instant::now() >= ending.drained {
                    return self.part(ending.ended).await;
                }
            }
            let wake = [self.pause, ending.as_ref().map(|ending| ending.drained)].into_iter().flatten().min();
            tokio::select! {
                changed = watch.changed() => if changed.is_err() { return },
                Some(first) = self.on_the_way.next() => self.settle_all(first).await,
                Some(order) = self.intake.recv() => self.take_in(order).await,
                () = sleep_until(wake) => self.pause = None,
                () = sleep_until(self.mend) => {
                    self.mend = Some(Instant::now() + LATER);
                    self.shelf.act(Spool::sync).await;
                }
                () = sleep_until(self.tidy) => {
                    self.tidy = None;
                    self.shelf.act(Spool::sync).await;
                }
                end = &mut stop, if ending.is_none() => {
                    let Ok(ended) = end else { return self.connection.cut() };
                    let now = Instant::now();
                    // The second half of the time belongs to the goodbye.
                    let drained = now + ended.saturating_duration_since(now) / 2;
                    ending = Some(Ending { drained, ended });
                    self.intake.close();
                    while let Some(order) = self.intake.recv().await {
                        self.take_in(order).await;
                    }
                }
            }
        }
    }

    /// Says `offline` and closes; what is not acknowledged stays in the spool.
    async fn part(&mut self, ended: Instant) {
        let left = || ended.saturating_duration_since(Instant::now());
        if let Ok(arrived) = self.connection.publish_tracked(self.presence(OFFLINE)) {
            let _ = tokio::time::timeout(left() / 2, arrived).await;
        }
        self.connection.close(left()).await;
        self.shelf.act(Spool::sync).await;
    }

    /// Asks a store that refuses again now and then. Once it has all, what could not be read of it
    /// meanwhile is sent too.
    fn mind_the_store(&mut self) {
        let behind = self.shelf.look().is_behind();
        match (behind, self.mend) {
            (true, None) => self.mend = Some(Instant::now() + LATER),
            (false, Some(_)) => {
                (self.mend, self.rewind) = (None, true);
                self.let_the_newest_be_last();
            }
            (true, Some(_)) | (false, None) => {}
        }
    }

    /// Once what was dropped is over (there is a connection, and room in the spool), it is told, once.
    async fn tell_what_was_dropped(&mut self) {
        let now = self.counters.dropped();
        let just_told = self.told_at.is_some_and(|at| at.elapsed() < TELL);
        if now == self.told || just_told || self.presented == 0 || !self.shelf.look().has_room() {
            return;
        }
        self.told_at = Some(Instant::now());
        let report = DroppedReport { dropped: now.since(&self.told), since_start: now };
        self.told = now;
        tracing::warn!("mqtt: messages that had to arrive were dropped: {}", report.dropped);
        let Ok(payload) = self.own.stamper.json(&report) else { return };
        let (topic, busy) = (self.own.dropped.clone(), self.busy.clone());
        let message = Spooled {
            topic,
            retain: false,
            payload,
            correlation: None,
            replaces: None,
            class: Importance::Health,
            timed: true,
        };
        self.shelf.act(move |spool| spool.push(vec![message], &busy)).await;
    }

    /// What was said after a message that is sent again may have arrived already.
    fn let_the_newest_be_last(&mut self) {
        self.newest.values_mut().for_each(|newest| newest.pending = true);
    }

    fn presence(&self, text: &'static str) -> Message {
        Message {
            topic: self.own.availability.clone(),
            payload: text.into(),
            retain: true,
            content_type: Some("text/plain".to_owned()),
            ..Message::default()
        }
    }

    /// Sends all that may be sent now.
    async fn send(&mut self, generation: u64) {
        if self.pause.is_some_and(|until| until > Instant::now()) {
            return;
        }
        let first = self.presented != generation;
        if (first || self.contradicted) && self.publish_presence(self.presence(ONLINE)).is_err() {
            return;
        }
        self.contradicted = false;
        for (topic, message) in self.due(first) {
            if self.publish_presence(message).is_err() {
                return;
            }
            if let Some(newest) = self.newest.get_mut(&topic) {
                newest.pending = false;
            }
        }
        self.presented = generation;
        self.send_spooled().await;
    }

    /// The retained topics to be published besides the spool: what is new, and on a new connection
    /// all of them; but not while the spool holds an older one, which would arrive after it.
    fn due(&self, first: bool) -> Vec<(String, Message)> {
        let spool = self.shelf.look();
        let wanted =
            |(topic, newest): &(&String, &Newest)| (newest.pending || first) && !spool.has_retained(topic);
        let message = |(topic, newest): (&String, &Newest)| {
            let message = Message {
                topic: topic.clone(),
                payload: payloads::sent(&newest.payload, jiff::Timestamp::now()).into(),
                retain: true,
                content_type: Some("application/json".to_owned()),
                ..Message::default()
            };
            (topic.clone(), message)
        };
        self.newest.iter().filter(wanted).map(message).collect()
    }

    fn publish_presence(&mut self, message: Message) -> Result<(), ()> {
        match self.connection.publish_tracked(message) {
            Ok(arrived) => {
                self.on_the_way.push(Box::pin(async move { (Sent::Presence, arrived.await) }));
                Ok(())
            }
            Err(PublishError::Refused(reason)) => {
                tracing::error!("mqtt: {reason}");
                Ok(())
            }
            Err(PublishError::NotNow | PublishError::Later(_) | PublishError::Lost) => {
                self.pause = Some(Instant::now() + SOON);
                Err(())
            }
        }
    }

    async fn send_spooled(&mut self) {
        if self.rewind {
            if !self.busy.is_empty() {
                return;
            }
            (self.rewind, self.cursor) = (false, 0);
        }
        let (free, cursor) = (WINDOW.saturating_sub(self.busy.len()), self.cursor);
        if free == 0 || self.shelf.look().newest() <= cursor {
            return;
        }
        let found = self.shelf.act(move |spool| spool.after(cursor, free)).await;
        for (id, message) in found.unwrap_or_default() {
            match self.connection.publish_tracked(message.into()) {
                Ok(arrived) => {
                    self.on_the_way.push(Box::pin(async move { (Sent::Spooled(id), arrived.await) }));
                    self.busy.insert(id);
                    self.cursor = id;
                }
                Err(PublishError::Refused(reason)) => {
                    tracing::error!("mqtt: dropped: {reason}");
                    self.shelf.act(move |spool| spool.give_up(id)).await;
                    self.cursor = id;
                }
                Err(PublishError::NotNow | PublishError::Later(_) | PublishError::Lost) => {
                    self.pause = Some(Instant::now() + SOON);
                    break;
                }
            }
        }
    }

    /// Takes what has ended, and all else that has meanwhile: what arrived together is removed together.
    async fn settle_all(&mut self, first: Ended) {
        let mut next = Some(first);
        while let Some((sent, result)) = next {
            self.settle(sent, result).await;
            next = self.on_the_way.next().now_or_never().flatten();
        }
        let arrived = std::mem::take(&mut self.arrived);
        if !arrived.is_empty() {
            self.shelf.act(move |spool| arrived.into_iter().for_each(|id| spool.remove(id))).await;
            self.tidy.get_or_insert(Instant::now() + TIDY);
        }
    }

    async fn settle(&mut self, sent: Sent, result: Result<(), PublishError>) {
        let Sent::Spooled(id) = sent else {
            match result {
                Ok(()) => {
                    self.counters.published.fetch_add(1, Ordering::Relaxed);
                }
                Err(PublishError::Refused(reason) | PublishError::Later(reason)) => {
                    tracing::error!("mqtt: {reason}");
                }
                // The next connection begins with it.
                Err(PublishError::Lost | PublishError::NotNow) => {}
            }
            return;
        };
        self.busy.remove(&id);
        match result {
            Ok(()) => {
                self.counters.published.fetch_add(1, Ordering::Relaxed);
                self.arrived.push(id);
            }
            Err(PublishError::Refused(reason)) => {
                tracing::error!("mqtt: dropped: {reason}");
                self.shelf.act(move |spool| spool.give_up(id)).await;
            }
            Err(PublishError::Later(reason)) => {
                tracing::warn!("mqtt: {reason}");
                self.rewind = true;
                self.let_the_newest_be_last();
                self.pause = Some(Instant::now() + LATER);
            }
            Err(PublishError::Lost | PublishError::NotNow) => self.rewind = true,
        }
    }

    /// Takes an order, and makes it durable together with all that came meanwhile.
    async fn take_in(&mut self, order: Order) {
        let (mut batch, mut asked) = (Vec::new(), Vec::new());
        let mut next = Some(order);
        while let Some(order) = next {
            match order {
                Order::Spool(message) => {
                    if message.retain {
                        let payload = message.payload.clone().into_bytes();
                        self.newest.insert(message.topic.clone(), Newest { payload, pending: false });
                    }
                    batch.push(message);
                }
                Order::Newest { topic, payload } => {
                    self.newest.insert(topic, Newest { payload, pending: true });
                }
                Order::Accepted(answer) => asked.push(answer),
                Order::Online => self.contradicted = true,
            }
            next = if batch.len() < BATCH { self.intake.try_recv().ok() } else { None };
        }
        if !batch.is_empty() {
            let busy = self.busy.clone();
            self.shelf.act(move |spool| spool.push(batch, &busy)).await;
            self.tidy = None;
        }
        for answer in asked {
            let _ = answer.send(!self.shelf.look().is_behind());
        }
    }
}

/// The spool, for a task that must not block.
struct Shelf {
    spool: Arc<Mutex<Spool>>,
    counters: Arc<Counters>,
}

impl Shelf {
    fn new(spool: Spool, counters: Arc<Counters>) -> Self {
        let shelf = Self { spool: Arc::new(Mutex::new(spool)), counters };
        shelf.count();
        shelf
    }

    /// Does what may block elsewhere; `None`, told, where that gave up.
    async fn act<T: Send + 'static>(&self, act: impl FnOnce(&mut Spool) -> T + Send + 'static) -> Option<T> {
        let spool = self.spool.clone();
        let work = move || Ok(act(&mut spool.lock().unwrap_or_else(PoisonError::into_inner)));
        let result = blocking(work).await;
        self.count();
        result.inspect_err(|reason| tracing::error!("mqtt spool: {reason}")).ok()
    }

    /// For what only looks at the index in memory.
    fn look(&self) -> MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) {
        let spool = self.look();
        self.counters.spool_len.store(spool.len() as u64, Ordering::Relaxed);
        self.counters.spool_bytes.store(spool.bytes() as u64, Ordering::Relaxed);
        self.counters.by_both()[0] = spool.dropped();
    }
}

/// How the time until the end is shared.
struct Ending {
    /// What waits is sent until then.
    drained: Instant,
    /// All is over.
    ended: Instant,
}

async fn sleep_until(wake: Option<Instant>) {
    match wake {
        Some(wake) => tokio::time::sleep_until(wake).await,
        None => std::future::pending().await,
    }
}
