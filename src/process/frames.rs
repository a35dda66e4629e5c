//! Frames in shared memory: one publisher, a few subscribers, the newest frame wins.
//!
//! The only file that names `iceoryx2`. Every subscriber has a buffer of one frame that the publisher
//! overwrites, so a slow model always takes the newest whole frame, latency does not grow, and nobody
//! can hold the camera up. A second service carries the wake-ups, so that nobody has to poll.
//!
//! A peer that was killed is found by its file lock: whoever joins next takes its memory away.

use crate::domain::frame::{FrameView, MAX_FRAME};
use crate::domain::{FrameFormat, FrameMeta, Reason, ReasonCode};
use crate::process::protocol::FrameChannel;
use iceoryx2::node::{Node, NodeBuilder, NodeState, NodeView};
use iceoryx2::port::{
    LoanError, ReceiveError, SendError, listener::Listener, notifier::Notifier, publisher::Publisher,
    subscriber::Subscriber,
};
use iceoryx2::prelude::{
    AllocationStrategy, CallbackProgression, Config, FileDescriptorBased, FileName, Path, SemanticString,
    ServiceName, SignalHandlingMode, ZeroCopySend, ipc, set_log_level,
};
use iceoryx2::sample::Sample;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use sha2::{Digest as _, Sha256};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::DirBuilderExt;
use std::time::{Duration, Instant};

/// Subscribers at most for each pipeline: the current model, a candidate, and room for ones that were
/// just killed.
const MAX_SUBSCRIBERS: usize = 6;
/// Pipelines at most on one channel; the configuration allows as many.
pub const MAX_READERS: u32 = 16;
/// Publishers at most: one, and room for ones that were just killed.
const MAX_PUBLISHERS: usize = 3;
/// Room for a frame before the memory grows; most JPEGs fit. Untouched pages cost nothing.
const FIRST_ROOM: usize = 256 << 10;
/// Frames that one subscriber can hold: the one it works on, and two while it looks for a newer one.
const BORROWED: usize = 3;
/// Longest root and prefix together: the path of a Unix socket has 107 bytes, and `iceoryx2` adds
/// an id of up to 39 digits and a suffix.
const MAX_PATH: usize = 107 - 1 - 39 - ".event".len();

/// Where the kernel shows shared memory as files.
const SHARED_MEMORY: &str = "/dev/shm";
/// A file there that is empty for so long is not being made any more.
const UNFINISHED: Duration = Duration::from_secs(1);

/// Frames cannot travel; the text names the act and the cause.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The channel's folder or prefix is of no use.
    #[error("frame channel {channel}: {detail}")]
    Channel {
        /// Folder and prefix.
        channel: String,
        /// What is wrong, and the remedy.
        detail: String,
    },
    /// The frame is larger than [`MAX_FRAME`] or not of the size that its format demands.
    #[error("frame {seq}: {detail}")]
    Frame {
        /// Its number.
        seq: u64,
        /// What is wrong, and the remedy.
        detail: String,
    },
    /// Shared memory gave out or is damaged.
    #[error("{act} through shared memory: {detail} (is /dev/shm full?)")]
    Memory {
        /// What was attempted.
        act: &'static str,
        /// The library's word for it.
        detail: String,
    },
}

impl From<FrameError> for Reason {
    fn from(error: FrameError) -> Self {
        let code = match &error {
            FrameError::Channel { .. } | FrameError::Memory { .. } => ReasonCode::Internal,
            FrameError::Frame { .. } => ReasonCode::Unsupported,
        };
        Reason::new(code, error.to_string())
    }
}

fn memory(act: &'static str) -> impl Fn(&dyn std::fmt::Debug) -> FrameError {
    move |error| FrameError::Memory { act, detail: format!("{error:?}") }
}

/// [`FrameMeta`] as it lies in shared memory.
#[derive(Debug, Clone, Copy, Default, ZeroCopySend)]
#[repr(C)]
#[type_name("edgewarden.FrameHeader.1")]
struct Header {
    seq: u64,
    captured_unix_ns: i64,
    captured_mono_ns: u64,
    width: u32,
    height: u32,
    format: u32,
    reserved: u32,
}

impl Header {
    fn new(meta: &FrameMeta) -> Self {
        Self {
            seq: meta.seq,
            captured_unix_ns: meta.captured_unix_ns,
            captured_mono_ns: meta.captured_mono_ns,
            width: meta.width,
            height: meta.height,
            format: meta.format as u32,
            reserved: 0,
        }
    }

    /// Checks what the other process wrote: a decoder that was taken over must not make us read a
    /// raw picture past its end.
    fn meta(&self, len: usize) -> Result<FrameMeta, FrameError> {
        let format =
            FrameFormat::ALL.into_iter().find(|format| *format as u32 == self.format).ok_or_else(|| {
                FrameError::Frame {
                    seq: self.seq,
                    detail: format!(
                        "unknown pixel format {}; agent and child must be one version",
                        self.format
                    ),
                }
            })?;
        let meta = FrameMeta {
            seq: self.seq,
            captured_unix_ns: self.captured_unix_ns,
            captured_mono_ns: self.captured_mono_ns,
            width: self.width,
            height: self.height,
            format,
        };
        check(&meta, len)?;
        Ok(meta)
    }
}

/// Refuses a frame that is too large or whose bytes do not fit its stated size: both are written by another
/// process.
///
/// # Errors
/// [`FrameError::Frame`] with what does not fit.
pub fn check(meta: &FrameMeta, len: usize) -> Result<(), FrameError> {
    let wrong = |detail| Err(FrameError::Frame { seq: meta.seq, detail });
    if len > MAX_FRAME {
        return wrong(format!("{len} bytes are more than {MAX_FRAME}; use a smaller picture or JPEG"));
    }
    match meta.format.exact_len(meta.width, meta.height) {
        Some(exact) if exact != len => wrong(format!(
            "{}x{} in {:?} takes {exact} bytes, not {len}",
            meta.width, meta.height, meta.format
        )),
        Some(_) | None => Ok(()),
    }
}

type Frames = iceoryx2::service::port_factory::publish_subscribe::PortFactory<ipc::Service, [u8], Header>;
type Events = iceoryx2::service::port_factory::event::PortFactory<ipc::Service>;

/// A process's membership in a channel.
struct Membership {
    frames: Frames,
    events: Events,
    // Dropped last: it marks everything above as in use.
    _node: Node<ipc::Service>,
}

impl Membership {
    fn join(channel: &FrameChannel) -> Result<Self, FrameError> {
        let config = config(channel)?;
        let failed = |what: &str, error: &dyn std::fmt::Debug| FrameError::Channel {
            channel: told(channel),
            detail: format!("{what}: {error:?}; the folder must be writable and /dev/shm mounted"),
        };
        let node = NodeBuilder::new()
            .config(&config)
            .signal_handling_mode(SignalHandlingMode::Disabled)
            .create::<ipc::Service>()
            .map_err(|e| failed("join", &e))?;
        let subscribers = MAX_SUBSCRIBERS * channel.readers.clamp(1, MAX_READERS) as usize;
        let name = |kind: &str| {
            ServiceName::new(&format!("{kind}/{}", channel.pipeline))
                .map_err(|e| failed("name the service", &e))
        };
        let frames = node
            .service_builder(&name("frames")?)
            .publish_subscribe::<[u8]>()
            .user_header::<Header>()
            .enable_safe_overflow(true)
            .subscriber_max_buffer_size(channel.room())
            .subscriber_max_borrowed_samples(BORROWED)
            .history_size(0)
            .max_publishers(MAX_PUBLISHERS)
            .max_subscribers(subscribers)
            .max_nodes(MAX_PUBLISHERS + subscribers)
            .open_or_create()
            .map_err(|e| failed("open the frames", &e))?;
        let events = node
            .service_builder(&name("wake")?)
            .event()
            .max_notifiers(MAX_PUBLISHERS)
            .max_listeners(subscribers)
            .max_nodes(MAX_PUBLISHERS + subscribers)
            .open_or_create()
            .map_err(|e| failed("open the wake-ups", &e))?;
        Ok(Self { frames, events, _node: node })
    }
}

fn told(channel: &FrameChannel) -> String {
    format!("{} ({})", channel.root.display(), channel.prefix)
}

/// The channel's own configuration, so that two agents on one machine do not meet.
fn config(channel: &FrameChannel) -> Result<Config, FrameError> {
    let wrong = |detail: String| FrameError::Channel { channel: told(channel), detail };
    let root = channel.root.as_os_str().as_encoded_bytes();
    if root.len() + channel.prefix.len() > MAX_PATH {
        return Err(wrong(format!(
            "path and prefix have {} bytes, {MAX_PATH} is the most that a Unix socket in it can be reached by; \
             set paths.runtime to a shorter one",
            root.len() + channel.prefix.len()
        )));
    }
    if channel.prefix.len() < 4 {
        return Err(wrong("the prefix has less than 4 characters, too few to be nobody else's".to_owned()));
    }
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&channel.root)
        .map_err(|e| wrong(format!("create the folder: {e}; set paths.runtime to a writable one")))?;
    // The library logs through `tracing`; it warns of what is as it should be (no configuration file of
    // its own), so only its errors are told to somebody who does not ask for all.
    set_log_level(if tracing::enabled!(tracing::Level::TRACE) {
        iceoryx2::prelude::LogLevel::Trace
    } else {
        iceoryx2::prelude::LogLevel::Error
    });
    let mut config = Config::default();
    config.global.set_root_path(&Path::new(root).map_err(|e| wrong(format!("path of the folder: {e:?}")))?);
    config.global.prefix =
        FileName::new(channel.prefix.as_bytes()).map_err(|e| wrong(format!("prefix: {e:?}")))?;
    Ok(config)
}

/// The prefix of the agent with this state folder: another one for each agent, and the same for every
/// run of one, so that a new run finds what a killed one left.
pub fn prefix_of(state: &std::path::Path) -> String {
    let id = Sha256::digest(state.as_os_str().as_encoded_bytes());
    format!("ew{}", hex::encode(&id[..4]))
}

/// Takes away what killed processes of this channel's agent left behind, and tells how many they
/// were. Disturbs nobody who is alive.
pub fn cleanup(channel: &FrameChannel) -> Result<usize, FrameError> {
    Ok(survey(&config(channel)?)?.removed)
}

/// Takes away everything that was ever made with this channel's folder and prefix. For the agent,
/// before it starts the first child and after it ended the last: refused while somebody is there.
pub fn remove(channel: &FrameChannel) -> Result<(), FrameError> {
    let config = config(channel)?;
    let failed = |detail: String| FrameError::Channel { channel: told(channel), detail };
    let survey = survey(&config)?;
    if survey.alive > 0 {
        return Err(failed(format!("{} processes still use it; end the other agent first", survey.alive)));
    }
    // The library keeps a counter for ever, and a process killed at a bad moment can leave files that
    // belong to no record. Names in shared memory begin with the prefix.
    for entry in
        std::fs::read_dir(SHARED_MEMORY).map_err(|e| failed(format!("read {SHARED_MEMORY}: {e}")))?.flatten()
    {
        if entry.file_name().as_encoded_bytes().starts_with(channel.prefix.as_bytes())
            && let Err(error) = std::fs::remove_file(entry.path())
        {
            tracing::warn!(file = %entry.path().display(), %error, "old shared memory was not removed");
        }
    }
    match std::fs::remove_dir_all(&channel.root) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(failed(format!("remove the folder: {e}"))),
        Ok(()) | Err(_) => Ok(()),
    }
}

struct Survey {
    removed: usize,
    alive: usize,
}

/// Looks at every process that ever joined with this configuration, and buries the dead.
fn survey(config: &Config) -> Result<Survey, FrameError> {
    take_away_unfinished(config.global.prefix.as_bytes());
    let mut survey = Survey { removed: 0, alive: 0 };
    Node::<ipc::Service>::list(config, |state| {
        match state {
            NodeState::Dead(dead) => {
                let id = *dead.id();
                match dead.blocking_remove_stale_resources(Duration::from_secs(1)) {
                    Ok(()) => survey.removed += 1,
                    Err(error) => tracing::warn!(?id, ?error, "memory of a dead child was not given back"),
                }
            }
            NodeState::Undefined(id) => tracing::warn!(?id, "the record of a child is damaged; passed over"),
            NodeState::Alive(_) | NodeState::Inaccessible(_) => survey.alive += 1,
        }
        CallbackProgression::Continue
    })
    .map_err(|e| memory("look for dead children")(&e))?;
    Ok(survey)
}

/// A process that is killed as it makes a file of shared memory leaves an empty one, and whoever opens that waits for
/// ever until it has a size (the library as of 0.10 knows no time-out for this). One that stays empty is taken away.
fn take_away_unfinished(prefix: &[u8]) {
    let end = Instant::now() + 2 * UNFINISHED;
    loop {
        let mut is_young = false;
        for entry in std::fs::read_dir(SHARED_MEMORY).into_iter().flatten().flatten() {
            if !entry.file_name().as_encoded_bytes().starts_with(prefix) {
                continue;
            }
            let Ok(found) = entry.metadata() else { continue };
            let age = found.modified().ok().and_then(|at| at.elapsed().ok());
            match (found.len(), age) {
                (0, Some(age)) if age < UNFINISHED => is_young = true,
                (0, _) => drop(std::fs::remove_file(entry.path())),
                _ => {}
            }
        }
        if !is_young || Instant::now() >= end {
            return;
        }
        std::thread::sleep(UNFINISHED / 20);
    }
}

/// The sending end.
pub struct FramePublisher {
    publisher: Publisher<ipc::Service, [u8], Header>,
    notifier: Notifier<ipc::Service>,
    _membership: Membership,
}

impl FramePublisher {
    /// Joins the channel, which is made where it does not exist.
    pub fn create(channel: &FrameChannel) -> Result<Self, FrameError> {
        let membership = Membership::join(channel)?;
        let publisher = membership
            .frames
            .publisher_builder()
            .initial_max_slice_len(FIRST_ROOM)
            .allocation_strategy(AllocationStrategy::PowerOfTwo)
            .max_loaned_samples(1)
            .create()
            .map_err(|e| memory("make room for frames")(&e))?;
        let notifier =
            membership.events.notifier_builder().create().map_err(|e| memory("make the wake-up")(&e))?;
        Ok(Self { publisher, notifier, _membership: membership })
    }

    /// Sends one frame to everybody who listens, and never waits for any of them.
    pub fn publish(&self, meta: &FrameMeta, bytes: &[u8]) -> Result<(), FrameError> {
        check(meta, bytes.len())?;
        let mut sample = self
            .publisher
            .loan_slice_uninit(bytes.len())
            .map_err(|e: LoanError| memory("send a frame")(&e))?;
        *sample.user_header_mut() = Header::new(meta);
        sample.write_from_slice(bytes).send().map_err(|e: SendError| memory("send a frame")(&e))?;
        // A listener that has hung has a full queue; its own watch will find it, the others were told.
        if let Err(error) = self.notifier.notify() {
            tracing::debug!(?error, "a wake-up did not reach everybody");
        }
        Ok(())
    }
}

/// The receiving end.
pub struct FrameSubscriber {
    subscriber: Subscriber<ipc::Service, [u8], Header>,
    listener: Listener<ipc::Service>,
    /// Frames are taken in their order, none left out.
    pub every: bool,
    _membership: Membership,
}

/// A frame in shared memory that stays as it is until this is dropped.
pub struct Lease {
    sample: Sample<ipc::Service, [u8], Header>,
    meta: FrameMeta,
}

impl Lease {
    /// What is known of the frame, and its bytes.
    pub fn view(&self) -> FrameView<'_> {
        FrameView { meta: self.meta, bytes: self.sample.payload() }
    }

    /// The frame's number.
    pub fn seq(&self) -> u64 {
        self.meta.seq
    }
}

impl FrameSubscriber {
    /// Joins the channel, which is made where it does not exist. The next frame that is published is
    /// the first that can be seen.
    pub fn open(channel: &FrameChannel) -> Result<Self, FrameError> {
        let membership = Membership::join(channel)?;
        let listener =
            membership.events.listener_builder().create().map_err(|e| memory("listen for frames")(&e))?;
        let subscriber = membership
            .frames
            .subscriber_builder()
            .buffer_size(channel.room())
            .create()
            .map_err(|e| memory("subscribe to frames")(&e))?;
        Ok(Self { subscriber, listener, every: channel.every, _membership: membership })
    }

    /// The newest frame that was not taken yet, without waiting; where every frame is wanted, the oldest.
    /// A frame that makes no sense is an error, and is taken.
    pub fn take(&self) -> Result<Option<Lease>, FrameError> {
        let mut newest: Option<Lease> = None;
        // One frame per publisher, and there may be dead ones; the bound is against a publisher that
        // sends faster than we can look.
        for _ in 0..=MAX_PUBLISHERS {
            let sample = self.subscriber.receive().map_err(|e: ReceiveError| memory("take a frame")(&e))?;
            let Some(sample) = sample else { break };
            let meta = sample.user_header().meta(sample.payload().len())?;
            if newest.as_ref().is_none_or(|lease| lease.meta.seq < meta.seq) {
                newest = Some(Lease { sample, meta });
            }
            if self.every {
                break;
            }
        }
        Ok(newest)
    }

    /// The newest frame that was not taken yet, waiting for one at most `wait`.
    pub fn newest(&self, wait: Duration) -> Result<Option<Lease>, FrameError> {
        let deadline = Instant::now() + wait;
        loop {
            // Look first, wait then: a wake-up that comes in between is kept.
            if let Some(lease) = self.take()? {
                return Ok(Some(lease));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            self.wait(None, left)?;
        }
    }

    /// Sleeps until a frame may have come, `also` can be read, or `timeout` has passed. May return
    /// early.
    pub fn wait(&self, also: Option<BorrowedFd<'_>>, timeout: Duration) -> Result<(), FrameError> {
        // SAFETY: the descriptor belongs to `self.listener` and is borrowed no longer than `self`.
        let listener = unsafe { BorrowedFd::borrow_raw(self.listener.file_descriptor().native_handle()) };
        let mut fds = [
            PollFd::from_borrowed_fd(listener, PollFlags::IN),
            PollFd::from_borrowed_fd(also.unwrap_or(listener), PollFlags::IN),
        ];
        let timeout = Timespec {
            tv_sec: timeout.as_secs().min(3600) as i64,
            tv_nsec: i64::from(timeout.subsec_nanos()),
        };
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(rustix::io::Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(e) => return Err(memory("wait for a frame")(&e)),
        }
        if fds[0].revents().contains(PollFlags::IN) {
            self.listener.try_wait(|_| {}).map_err(|e| memory("wait for a frame")(&e))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
