//! One run of a stream's program: its output read as it comes, and cut into pictures.

use super::jpeg::JpegCutter;
use super::presets::Launch;
use super::y4m::Y4mCutter;
use crate::domain::stream::StreamFormat;
use crate::domain::{FrameFormat, Reason};
use crate::inference::source::Picture;
use crate::inference::source::program::{End, Process, Read};
use crate::sys::monotonic;
use std::time::{Duration, Instant};

/// Bytes read at once where they do not go straight to their picture.
pub(super) const CHUNK: usize = 64 << 10;

/// What a cutter has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How to read the bytes.
    pub format: FrameFormat,
}

/// Why a cutter has found nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// One picture; the next may be good.
    Frame(String),
    /// There is no way on in this stream.
    Stream(String),
}

/// A program's output, cut into pictures.
enum Cutter {
    Jpeg(JpegCutter),
    Y4m(Y4mCutter),
}

impl Cutter {
    fn new(launch: &Launch) -> Self {
        match launch.format {
            StreamFormat::Mjpeg => Cutter::Jpeg(JpegCutter::default()),
            StreamFormat::Y4m if launch.line.name().starts_with("gst-launch") => {
                Cutter::Y4m(Y4mCutter::of_gstreamer())
            }
            StreamFormat::Y4m => Cutter::Y4m(Y4mCutter::default()),
        }
    }

    fn push(&mut self, bytes: &[u8]) -> (usize, Result<Option<Found>, Unreadable>) {
        match self {
            Cutter::Jpeg(jpeg) => jpeg.push(bytes),
            Cutter::Y4m(y4m) => y4m.push(bytes),
        }
    }

    fn take(&mut self, spare: &mut Vec<u8>) {
        match self {
            Cutter::Jpeg(jpeg) => jpeg.take(spare),
            Cutter::Y4m(y4m) => y4m.take(spare),
        }
    }

    fn unfinished(&self) -> usize {
        match self {
            Cutter::Jpeg(jpeg) => jpeg.unfinished(),
            Cutter::Y4m(y4m) => y4m.unfinished(),
        }
    }

    /// Where a long picture's next bytes go, when they are worth a read of their own.
    fn room(&mut self) -> Option<&mut [u8]> {
        match self {
            Cutter::Jpeg(_) => None,
            Cutter::Y4m(y4m) => y4m.room().filter(|room| room.len() >= CHUNK),
        }
    }

    fn filled(&mut self, bytes: usize) -> Option<Found> {
        match self {
            Cutter::Jpeg(_) => None,
            Cutter::Y4m(y4m) => y4m.filled(bytes),
        }
    }
}

/// One run of the program, from its start to its end.
pub(super) struct Run {
    process: Process,
    cutter: Cutter,
    since: Instant,
    pictures: u64,
    /// What was read and not cut yet: `chunk[from..to]`.
    from: usize,
    to: usize,
    /// When the picture that is on its way began to come.
    began_ns: u64,
}

/// What one look at the output has led to.
pub(super) enum Looked {
    Picture(Picture),
    Pending,
    /// One picture is bad.
    Bad(String),
    /// The run is over: by itself, or because its output makes no sense.
    Over(Option<String>),
}

impl Run {
    /// Starts the program.
    pub(super) fn start(launch: &Launch) -> Result<Self, Reason> {
        Ok(Self {
            process: Process::start(&launch.line, &launch.remedy())?,
            cutter: Cutter::new(launch),
            since: Instant::now(),
            pictures: 0,
            from: 0,
            to: 0,
            began_ns: 0,
        })
    }

    /// Pictures that it gave.
    pub(super) fn pictures(&self) -> u64 {
        self.pictures
    }

    /// True in the middle of a picture.
    pub(super) fn is_torn(&self) -> bool {
        self.cutter.unfinished() > 0
    }

    /// For how long it has run.
    pub(super) fn lasted(&self) -> Duration {
        self.since.elapsed()
    }

    /// Ends it, see [`Process::end`].
    pub(super) fn end(self, grace: Duration, asked: bool) -> End {
        self.process.end(grace, asked)
    }

    /// Reads until there is a picture, at most to the deadline.
    pub(super) fn look(
        &mut self,
        chunk: &mut [u8],
        live: bool,
        into: &mut Vec<u8>,
        deadline: Instant,
    ) -> Looked {
        // What is in the pipe now is older than what comes: of a camera all of it is read away.
        let mut older = if live { self.process.waiting() } else { 0 };
        let mut picture = None;
        let made = |Found { width, height, format }, at_ns| Picture {
            captured_mono_ns: live.then_some(at_ns),
            width,
            height,
            format,
        };
        loop {
            if self.from < self.to {
                match self.cut(chunk, into) {
                    Ok(None) => {}
                    Ok(Some((found, at))) if live => picture = Some(made(found, at)),
                    Ok(Some((found, at))) => return Looked::Picture(made(found, at)),
                    Err(Unreadable::Frame(detail)) => return Looked::Bad(detail),
                    Err(Unreadable::Stream(detail)) => return Looked::Over(Some(detail)),
                }
                continue;
            }
            if older == 0
                && let Some(picture) = picture
            {
                return Looked::Picture(picture);
            }
            // First, so that what it wrote last is read.
            let ended = self.process.has_ended();
            match self.read(chunk, into) {
                (Read::Bytes(bytes), None) => older = older.saturating_sub(bytes),
                (Read::Bytes(bytes), Some(found)) => {
                    older = older.saturating_sub(bytes);
                    let found = made(found, self.began_ns);
                    if !live {
                        return Looked::Picture(found);
                    }
                    picture = Some(found);
                }
                (Read::Later | Read::End, _) if picture.is_some() => older = 0,
                (Read::End, _) => return Looked::Over(None),
                (Read::Later, _) if ended => return Looked::Over(None),
                (Read::Later, _) => {
                    let now = Instant::now();
                    if now >= deadline {
                        return Looked::Pending;
                    }
                    self.process.wait(deadline - now);
                }
            }
            // A program that writes without an end, and never a picture, keeps nobody here.
            if picture.is_none() && Instant::now() >= deadline {
                return Looked::Pending;
            }
        }
    }

    /// Reads once: straight into a picture, or into the chunk.
    fn read(&mut self, chunk: &mut [u8], into: &mut Vec<u8>) -> (Read, Option<Found>) {
        if let Some(room) = self.cutter.room() {
            let read = self.process.read(room);
            let Read::Bytes(bytes) = read else { return (read, None) };
            let found = self.cutter.filled(bytes);
            if found.is_some() {
                self.pictures += 1;
                self.cutter.take(into);
            }
            return (read, found);
        }
        let read = self.process.read(chunk);
        if let Read::Bytes(bytes) = read {
            (self.from, self.to) = (0, bytes);
        }
        (read, None)
    }

    /// Cuts on in the chunk, up to one picture; with the time at which it began to come.
    fn cut(&mut self, chunk: &[u8], into: &mut Vec<u8>) -> Result<Option<(Found, u64)>, Unreadable> {
        if self.cutter.unfinished() == 0 {
            self.began_ns = monotonic::now_ns();
        }
        let (used, found) = self.cutter.push(&chunk[self.from..self.to]);
        self.from += used;
        let Some(found) = found? else { return Ok(None) };
        self.pictures += 1;
        self.cutter.take(into);
        Ok(Some((found, self.began_ns)))
    }
}
