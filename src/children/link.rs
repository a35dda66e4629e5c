//! A child's end of the socket: a thread that reads orders, and an event (eventfd) that is signalled
//! for each, so that the main thread can sleep on it together with other things.

use crate::domain::{Reason, ReasonCode};
use crate::process::codec::{CodecError, Reader, Writer};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::process::{Signal, getpid, kill_process};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, TrySendError, sync_channel};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Orders that may wait; the agent then waits to send more.
const WAITING: usize = 32;
/// While so many wait, room for the next is looked for this often.
const ROOM_EVERY: Duration = Duration::from_millis(20);

/// A child that is told to end ends within this time; a model that hangs is no reason to stay.
const LAST: Duration = Duration::from_secs(5);

/// Why there is no order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoOrder {
    /// None yet.
    Yet,
    /// The agent closed the socket or is gone: the child is to end.
    Ever,
}

/// Reads the first message, which says what the child is for. `None`: the agent closed the socket.
pub fn first<In: DeserializeOwned>(socket: &UnixStream) -> Result<Option<In>, Reason> {
    Reader::new(socket).read().map_err(|e| fault("read the configuration", &e))
}

/// The way to the agent.
pub struct Answers(Writer<UnixStream>);

/// The agent no longer listens: there is nobody to do anything for.
#[derive(Debug)]
pub struct Gone;

impl Answers {
    /// Answers go to `socket`.
    pub fn new(socket: &UnixStream) -> Result<Self, Reason> {
        let socket = socket.try_clone().map_err(|e| fault("share the socket", &e))?;
        Ok(Self(Writer::new(socket)))
    }

    /// Says one thing.
    pub fn say<Out: Serialize>(&mut self, message: &Out) -> Result<(), Gone> {
        self.try_say(message)?.map_err(|error| {
            tracing::error!(%error, "a message that cannot be sent");
            Gone
        })
    }

    /// Says one thing that may turn out too long to be said: then nothing was sent, and another thing
    /// can be said instead.
    pub fn try_say<Out: Serialize>(&mut self, message: &Out) -> Result<Result<(), CodecError>, Gone> {
        match self.0.write(message) {
            Err(CodecError::Io { .. }) => Err(Gone),
            Err(error @ (CodecError::TooLong(_) | CodecError::Garbage(_))) => Ok(Err(error)),
            Ok(()) => Ok(Ok(())),
        }
    }
}

/// Signals the event of [`Orders`].
#[derive(Clone)]
pub struct Waker(Arc<OwnedFd>);

impl Waker {
    /// Wakes the thread that sleeps on the event.
    pub fn wake(&self) {
        // One that is signalled already cannot be more so.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }
}

/// The way from the agent.
pub struct Orders<In> {
    queue: Receiver<In>,
    event: Arc<OwnedFd>,
    /// Given up with this: whoever takes orders is done.
    _at_work: Arc<()>,
}

impl<In: DeserializeOwned + Send + 'static> Orders<In> {
    /// Starts the thread that reads them from `socket`.
    pub fn listen(socket: UnixStream) -> Result<Self, Reason> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        let event = Arc::new(event.map_err(|e| fault("make an event", &e))?);
        let (orders, queue) = sync_channel(WAITING);
        let waker = Waker(event.clone());
        let at_work = Arc::new(());
        let working = Arc::downgrade(&at_work);
        std::thread::Builder::new()
            .name("orders".to_owned())
            .spawn(move || {
                read_all(socket, orders, &waker);
                end_in_time(&working);
            })
            .map_err(|e| fault("start a thread", &e))?;
        Ok(Self { queue, event, _at_work: at_work })
    }

    /// Readable when an order waits, or when there will be none any more.
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Signals the same event from another thread of the child.
    pub fn waker(&self) -> Waker {
        Waker(self.event.clone())
    }

    /// Sleeps until the event is signalled, at most `timeout`. May return early.
    pub fn nap(&self, timeout: Duration) {
        let mut fds = [PollFd::from_borrowed_fd(self.event(), PollFlags::IN)];
        let timeout = Timespec {
            tv_sec: timeout.as_secs().min(3600) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        // What cannot be waited for is looked at again, as if it had come.
        let _ = poll(&mut fds, Some(&timeout));
    }

    /// The next order if there is one; clears the event when there is none.
    pub fn take(&self) -> Result<In, NoOrder> {
        let clear = || {
            let mut count = [0; 8];
            // Fails when it is not signalled, which is as good.
            let _ = rustix::io::read(&self.event, &mut count);
        };
        match self.queue.try_recv() {
            Ok(order) => Ok(order),
            Err(TryRecvError::Disconnected) => Err(NoOrder::Ever),
            Err(TryRecvError::Empty) => {
                clear();
                // One may have come before the event was cleared.
                self.queue.try_recv().map_err(|e| match e {
                    TryRecvError::Empty => NoOrder::Yet,
                    TryRecvError::Disconnected => NoOrder::Ever,
                })
            }
        }
    }

    /// The next order, waiting for one at most `wait`, or for ever.
    pub fn wait(&self, wait: Option<Duration>) -> Result<In, NoOrder> {
        match wait {
            None => self.queue.recv().map_err(|_| NoOrder::Ever),
            Some(wait) => self.queue.recv_timeout(wait).map_err(|e| match e {
                RecvTimeoutError::Timeout => NoOrder::Yet,
                RecvTimeoutError::Disconnected => NoOrder::Ever,
            }),
        }
    }
}

fn read_all<In: DeserializeOwned>(socket: UnixStream, orders: SyncSender<In>, waker: &Waker) {
    let mut reader = Reader::new(&socket);
    loop {
        match reader.read() {
            Ok(Some(order)) => match hand_on(&socket, &orders, order) {
                Ok(()) => waker.wake(),
                Err(NobodyThere) => break,
            },
            Ok(None) => break,
            Err(error) => {
                tracing::error!(%error, "the agent cannot be understood");
                break;
            }
        }
    }
    // The main thread must find the queue closed when the event wakes it.
    drop(orders);
    waker.wake();
}

/// The agent has closed the socket, or the child takes no more orders.
struct NobodyThere;

/// Gives an order to the main thread. Where that takes none and too many wait, it may be stuck: the socket
/// is watched meanwhile, whose end lies behind the orders that cannot be read.
fn hand_on<In>(socket: &UnixStream, orders: &SyncSender<In>, mut order: In) -> Result<(), NobodyThere> {
    loop {
        order = match orders.try_send(order) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Disconnected(_)) => return Err(NobodyThere),
            Err(TrySendError::Full(order)) => order,
        };
        let mut fds = [PollFd::new(socket, PollFlags::RDHUP)];
        let wait = Timespec { tv_sec: 0, tv_nsec: i64::from(ROOM_EVERY.subsec_nanos()) };
        // What cannot be watched is looked at again after a moment.
        if let Ok(1..) = poll(&mut fds, Some(&wait)) {
            return Err(NobodyThere);
        }
    }
}

/// Nobody is there to work for any more: whoever still does is stuck, in a model or in a driver, and
/// holds memory and devices that the next child needs.
fn end_in_time(working: &Weak<()>) {
    let start = Instant::now();
    while working.strong_count() > 0 {
        if start.elapsed() >= LAST {
            tracing::error!("the agent closed the socket and the work goes on after {LAST:?}; ending it");
            // Not `exit`: it would wait for the libraries that hang.
            let _ = kill_process(getpid(), Signal::KILL);
            return;
        }
        std::thread::sleep(LAST / 50);
    }
}

fn fault(act: &str, error: &dyn std::fmt::Display) -> Reason {
    Reason::new(ReasonCode::Internal, format!("child: {act}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::protocol::ToInfer;

    fn signalled(orders: &Orders<ToInfer>, wait: bool) -> bool {
        let event = orders.event();
        let mut fds = [PollFd::from_borrowed_fd(event, PollFlags::IN)];
        let timeout = Timespec { tv_sec: if wait { 30 } else { 0 }, tv_nsec: 0 };
        poll(&mut fds, Some(&timeout)).unwrap() == 1
    }

    #[test]
    fn the_event_is_signalled_for_orders_and_for_the_end() {
        let (agent, child) = UnixStream::pair().unwrap();
        let orders = Orders::<ToInfer>::listen(child).unwrap();
        assert!(!signalled(&orders, false));
        let mut writer = Writer::new(agent);
        for from in 1..=3 {
            writer.write(&ToInfer::Start { from }).unwrap();
        }
        assert!(signalled(&orders, true));
        for from in 1..=3 {
            assert_eq!(orders.wait(None), Ok(ToInfer::Start { from }));
        }
        drop(writer);
        // It may be signalled once more for an order that was taken without it, never less than once for
        // the end.
        loop {
            assert!(signalled(&orders, true));
            match orders.take() {
                Err(NoOrder::Ever) => break,
                other => assert_eq!(other, Err(NoOrder::Yet)),
            }
        }
        assert_eq!(orders.wait(None), Err(NoOrder::Ever));
    }

    /// As a process of the next test: it is stuck, with more orders than may wait, and its agent leaves.
    #[test]
    fn stuck_with_unread_orders() {
        if std::env::var_os("EDGEWARDEN_TEST_STUCK").is_none() {
            return;
        }
        let (agent, child) = UnixStream::pair().unwrap();
        let _orders = Orders::<ToInfer>::listen(child).unwrap();
        let mut writer = Writer::new(agent);
        for from in 0..2 * WAITING as u64 {
            writer.write(&ToInfer::Start { from }).unwrap();
        }
        drop(writer);
        std::thread::sleep(Duration::from_secs(60));
    }

    #[test]
    fn a_child_that_is_stuck_with_unread_orders_ends_with_its_agent() {
        use std::os::unix::process::ExitStatusExt;
        let ended = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "children::link::tests::stuck_with_unread_orders"])
            .env("EDGEWARDEN_TEST_STUCK", "")
            .stdout(std::process::Stdio::null())
            .status()
            .unwrap();
        assert_eq!(ended.signal(), Some(9), "it outlives its agent: {ended}");
    }

    #[test]
    fn orders_beyond_those_that_may_wait_are_handed_on_when_there_is_room() {
        let (agent, child) = UnixStream::pair().unwrap();
        let orders = Orders::<ToInfer>::listen(child).unwrap();
        let mut writer = Writer::new(agent);
        let count = 3 * WAITING as u64;
        for from in 0..count {
            writer.write(&ToInfer::Start { from }).unwrap();
        }
        for from in 0..count {
            assert_eq!(orders.wait(None), Ok(ToInfer::Start { from }));
        }
    }
}
