//! The flow of frames: four buffers that the driver fills in turn.
//!
//! The newest frame wins: what the driver has filled meanwhile is taken out, the newest is copied, and
//! all are given back at once.

use super::super::Picture;
use super::frame;
use super::kernel::{Device, Filled, Kind, Layout};
use super::mapping::Mapping;
use crate::domain::FrameFormat;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::time::Duration;

/// One that is filled, one that is read, and two so that the driver never waits.
const BUFFERS: u32 = 4;

/// What taking a frame led to.
pub enum Took {
    /// Its bytes are in the buffer.
    Frame(Picture),
    /// There was none within the time.
    Nothing,
    /// Frames came, and none was good; what was wrong with the last one.
    Bad(String),
}

/// A device that streams, or has stopped.
pub struct Stream {
    device: Device,
    kind: Kind,
    layout: Layout,
    becomes: FrameFormat,
    buffers: Vec<Mapping>,
    flows: bool,
}

impl Stream {
    /// Asks for buffers, maps them, and lets the frames flow.
    pub fn open(device: Device, kind: Kind, layout: Layout, becomes: FrameFormat) -> Result<Self, Errno> {
        let count = device.request_buffers(kind, BUFFERS)?;
        if count == 0 {
            return Err(Errno::NOMEM);
        }
        // A driver may give more than it was asked for.
        let buffers = (0..count.min(2 * BUFFERS)).map(|index| device.map_buffer(kind, index));
        let buffers = buffers.collect::<Result<_, _>>()?;
        let mut stream = Self { device, kind, layout, becomes, buffers, flows: false };
        stream.start()?;
        Ok(stream)
    }

    /// Lets the frames flow; does nothing when they do.
    pub fn start(&mut self) -> Result<(), Errno> {
        if self.flows {
            return Ok(());
        }
        for index in 0..self.buffers.len() as u32 {
            self.device.queue(self.kind, index)?;
        }
        self.device.start(self.kind)?;
        self.flows = true;
        Ok(())
    }

    /// Stops them: the camera may sleep.
    pub fn stop(&mut self) -> Result<(), Errno> {
        self.flows = false;
        self.device.stop(self.kind)
    }

    /// Waits for a frame, and copies the newest one.
    pub fn take(&mut self, into: &mut Vec<u8>, wait: Duration) -> Result<Took, Errno> {
        if !self.flows {
            std::thread::sleep(wait);
            return Ok(Took::Nothing);
        }
        let mut fds = [PollFd::new(&self.device, PollFlags::IN)];
        let timeout = Timespec::try_from(wait).map_err(|_| Errno::INVAL)?;
        match poll(&mut fds, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(Took::Nothing),
            Ok(_) => {}
            Err(error) => return Err(error),
        }
        let events = fds[0].revents();
        let (newest, bad) = self.drain()?;
        let Some(filled) = newest else {
            return match bad {
                Some(why) => Ok(Took::Bad(why)),
                // The device is gone, or its queue is broken, and there is nothing left to take.
                None if events.intersects(PollFlags::ERR | PollFlags::HUP) => Err(Errno::IO),
                None => Ok(Took::Nothing),
            };
        };
        let copied = match self.buffers.get(filled.index as usize) {
            Some(buffer) => {
                let bytes = buffer.bytes().get(filled.start..).unwrap_or_default();
                let bytes = bytes.get(..filled.len).unwrap_or(bytes);
                frame::copy(&self.layout, bytes, into)
            }
            None => Err("lies in a buffer that does not exist".to_owned()),
        };
        self.device.queue(self.kind, filled.index)?;
        Ok(match copied {
            Err(why) => Took::Bad(why),
            Ok(()) => Took::Frame(Picture {
                captured_mono_ns: filled.taken_ns,
                width: self.layout.size.width,
                height: self.layout.size.height,
                format: self.becomes,
            }),
        })
    }

    /// Takes out all that is filled and gives back all but the newest good one.
    fn drain(&self) -> Result<(Option<Filled>, Option<String>), Errno> {
        let (mut newest, mut bad) = (None, None);
        for _ in 0..2 * self.buffers.len() {
            let filled = match self.device.dequeue(self.kind) {
                Ok(filled) => filled,
                Err(Errno::AGAIN | Errno::INTR) => break,
                Err(error) => return Err(error),
            };
            let back = if filled.damaged {
                bad = Some("was marked as damaged by the driver".to_owned());
                Some(filled)
            } else {
                newest.replace(filled)
            };
            if let Some(back) = back {
                self.device.queue(self.kind, back.index)?;
            }
        }
        Ok((newest, bad))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.flows {
            // Closing the device stops it as well.
            let _ = self.device.stop(self.kind);
        }
    }
}
