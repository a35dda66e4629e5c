//! The calls of the kernel's camera interface, and the only file that makes them.
//!
//! Each function is one question or one order; what to ask and what the answer means is decided
//! elsewhere. A driver that lists without an end is cut short.

use super::abi::{
    Buffer, BufferRequest, Capability, CaptureParameters, Control, ControlQuery, DISCRETE, Format,
    FormatData, FormatDescription, Fraction, FrameInterval, FrameSize, MenuQuery, PixelFormat,
    PixelFormatPlanes, Place, Plane, StreamParameters,
};
use super::mapping::Mapping;
use super::offer::{FourCc, Interval, Intervals, Range, Size, Sizes};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Longest list that is read from a driver.
const MAX_LIST: u32 = 256;
/// Buffers that the kernel maps to us, as opposed to memory of ours.
const MEMORY_MAPPED: u32 = 1;
/// Whole pictures, not every other line.
const FIELD_NONE: u32 = 1;
const FIELD_INTERLACED: u32 = 4;
const BUFFER_ERROR: u32 = 0x40;
const TIMESTAMP_KIND: u32 = 0xe000;
const TIMESTAMP_MONOTONIC: u32 = 0x2000;
/// The rate can be set.
const TIME_PER_FRAME: u32 = 0x1000;
const NEXT_CONTROL: u32 = 0x8000_0000;

macro_rules! calls {
    ($($(#[$doc:meta])* $name:ident: $way:ident($number:literal, $record:ty);)*) => {
        $($(#[$doc])*
        fn $name(device: &Device, record: &mut $record) -> Result<(), Errno> {
            const CODE: Opcode = opcode::$way::<$record>(b'V', $number);
            // SAFETY: the number goes with this record, whose layout is the kernel's (a test compares
            // them), and the record lives until the call returns.
            unsafe { ioctl(&device.file, Updater::<CODE, $record>::new(record)) }
        })*
    };
}

calls! {
    query_capability: read(0, Capability);
    enumerate_formats: read_write(2, FormatDescription);
    set_pixel_format: read_write(5, Format);
    request_buffers: read_write(8, BufferRequest);
    query_buffer: read_write(9, Buffer);
    queue_buffer: read_write(15, Buffer);
    dequeue_buffer: read_write(17, Buffer);
    stream_on: write(18, u32);
    stream_off: write(19, u32);
    get_parameters: read_write(21, StreamParameters);
    set_parameters: read_write(22, StreamParameters);
    get_control: read_write(27, Control);
    set_control: read_write(28, Control);
    query_control: read_write(36, ControlQuery);
    query_menu: read_write(37, MenuQuery);
    try_pixel_format: read_write(64, Format);
    enumerate_sizes: read_write(74, FrameSize);
    enumerate_intervals: read_write(75, FrameInterval);
}

/// Which of the kernel's two ways to describe frames a device speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A frame is one piece of memory.
    Single = 1,
    /// A frame may be several; those of one are used.
    Planes = 9,
}

/// What a device says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// The driver's name.
    pub driver: String,
    /// The device's name, for people.
    pub name: String,
    /// Where it is plugged in; begins with `usb-` for USB.
    pub bus: String,
    /// How it gives frames; `None` when it is not made to.
    pub kind: Option<Kind>,
}

/// What a frame will look like in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// How to read the bytes.
    pub format: FourCc,
    /// Pixels.
    pub size: Size,
    /// Bytes from one row to the next; zero where the format has no rows.
    pub stride: u32,
    /// Pieces of memory a frame.
    pub planes: u8,
    /// True when a frame holds every line of the picture.
    pub whole: bool,
}

/// A control's bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ControlInfo {
    /// The kernel's number for it.
    pub id: u32,
    /// 1 number, 2 switch, 3 menu, 4 button, 9 menu of numbers; others cannot be set here.
    pub kind: u32,
    /// As the driver writes it.
    pub name: String,
    /// Least, greatest, step and default value.
    pub bounds: [i32; 4],
    /// Whether it is off, read-only, governed by another one …
    pub flags: u32,
}

/// A frame that the driver has filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Filled {
    /// Which buffer.
    pub index: u32,
    /// Where the frame begins and how many bytes it has.
    pub start: usize,
    /// Bytes of the frame.
    pub len: usize,
    /// The driver says that the content may be damaged.
    pub damaged: bool,
    /// Nanoseconds on `CLOCK_MONOTONIC`, where the driver uses that clock.
    pub taken_ns: Option<u64>,
}

/// An open device.
pub struct Device {
    file: OwnedFd,
}

impl AsFd for Device {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

impl Device {
    /// Opens it; nothing of it changes.
    pub fn open(path: &Path) -> Result<Self, Errno> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK;
        Ok(Self { file: rustix::fs::open(path, flags, Mode::empty())? })
    }

    /// What it is.
    pub fn about(&self) -> Result<About, Errno> {
        const HAS_OWN_CAPABILITIES: u32 = 0x8000_0000;
        const STREAMING: u32 = 0x0400_0000;
        const CAPTURE: u32 = 1;
        const CAPTURE_PLANES: u32 = 0x1000;
        // Decoders and the like give frames as well, made of frames that they are given.
        const MEMORY_TO_MEMORY: u32 = 0x8000 | 0x4000;
        let mut record = Capability::default();
        query_capability(self, &mut record)?;
        let own = record.capabilities & HAS_OWN_CAPABILITIES != 0;
        let can = if own { record.device_caps } else { record.capabilities };
        let kind = match can {
            can if can & STREAMING == 0 || can & MEMORY_TO_MEMORY != 0 => None,
            can if can & CAPTURE != 0 => Some(Kind::Single),
            can if can & CAPTURE_PLANES != 0 => Some(Kind::Planes),
            _ => None,
        };
        let [driver, name, bus] = [&record.driver[..], &record.card, &record.bus_info].map(text);
        Ok(About { driver, name, bus, kind })
    }

    /// The formats that it offers, the driver's favourite first.
    pub fn formats(&self, kind: Kind) -> Vec<FourCc> {
        let format = |index| {
            let mut record = FormatDescription { index, kind: kind as u32, ..Default::default() };
            enumerate_formats(self, &mut record).ok().map(|()| FourCc(record.pixel_format))
        };
        (0..MAX_LIST).map_while(format).collect()
    }

    /// The sizes in which it offers a format; empty when it does not tell.
    pub fn sizes(&self, format: FourCc) -> Vec<Sizes> {
        let size = |index| {
            let mut record = FrameSize { index, pixel_format: format.0, ..Default::default() };
            enumerate_sizes(self, &mut record).ok()?;
            let [a, b, c, d, e, f] = record.size;
            Some(match record.kind {
                DISCRETE => Sizes { width: Range::only(a), height: Range::only(b) },
                _ => Sizes {
                    width: Range { min: a, max: b, step: c },
                    height: Range { min: d, max: e, step: f },
                },
            })
        };
        (0..MAX_LIST).map_while(size).collect()
    }

    /// The times from frame to frame at which it offers a format in a size; empty when it does not tell.
    pub fn intervals(&self, format: FourCc, size: Size) -> Vec<Intervals> {
        let interval = |index| {
            let Size { width, height } = size;
            let mut record =
                FrameInterval { index, pixel_format: format.0, width, height, ..Default::default() };
            enumerate_intervals(self, &mut record).ok()?;
            let [least, most, _] = record.times.map(|time| Interval::new(time.numerator, time.denominator));
            let most = if record.kind == DISCRETE { least } else { most };
            Some(Intervals { shortest: least?, longest: most? })
        };
        (0..MAX_LIST).map_while(interval).collect()
    }

    /// What it would make of a format, without changing anything.
    pub fn try_format(&self, kind: Kind, format: FourCc, size: Size) -> Result<Layout, Errno> {
        let mut record = format_record(kind, format, size);
        try_pixel_format(self, &mut record)?;
        Ok(layout(kind, &record))
    }

    /// Sets the format; the driver may change it to what it can do. `EBUSY` when somebody else streams.
    pub fn set_format(&self, kind: Kind, format: FourCc, size: Size) -> Result<Layout, Errno> {
        let mut record = format_record(kind, format, size);
        set_pixel_format(self, &mut record)?;
        Ok(layout(kind, &record))
    }

    /// Sets the time from frame to frame and gives the one that the driver chose; `None` when it cannot
    /// be set.
    pub fn set_interval(&self, kind: Kind, interval: Interval) -> Option<Interval> {
        let mut record = StreamParameters { kind: kind as u32, capture: CaptureParameters::default() };
        get_parameters(self, &mut record).ok()?;
        if record.capture.capability & TIME_PER_FRAME == 0 {
            return None;
        }
        let (numerator, denominator) = interval.fraction();
        record.capture.time_per_frame = Fraction { numerator, denominator };
        set_parameters(self, &mut record).ok()?;
        let set = record.capture.time_per_frame;
        Interval::new(set.numerator, set.denominator)
    }

    /// Its controls, in the kernel's order.
    pub fn controls(&self) -> Vec<ControlInfo> {
        let mut found = Vec::new();
        let mut id = 0;
        while found.len() < MAX_LIST as usize {
            let mut record = ControlQuery { id: id | NEXT_CONTROL, ..Default::default() };
            // Numbers rise; a driver that gives the same one again would be asked for ever.
            if query_control(self, &mut record).is_err() || record.id <= id {
                break;
            }
            id = record.id;
            found.push(ControlInfo {
                id,
                kind: record.kind,
                name: text(&record.name),
                bounds: [record.minimum, record.maximum, record.step, record.default],
                flags: record.flags,
            });
        }
        found
    }

    /// The text of a menu's choice; `None` when there is no such choice.
    pub fn menu_text(&self, control: &ControlInfo, index: u32) -> Option<String> {
        const MENU_OF_NUMBERS: u32 = 9;
        let mut record = MenuQuery { id: control.id, index, ..Default::default() };
        query_menu(self, &mut record).ok()?;
        let [a, b, c, d, e, f, g, h, ..] = record.name;
        Some(match control.kind {
            MENU_OF_NUMBERS => i64::from_ne_bytes([a, b, c, d, e, f, g, h]).to_string(),
            _ => text(&record.name),
        })
    }

    /// Sets a control.
    pub fn set_control(&self, id: u32, value: i32) -> Result<(), Errno> {
        set_control(self, &mut Control { id, value })
    }

    /// The value of a control.
    pub fn control(&self, id: u32) -> Result<i32, Errno> {
        let mut record = Control { id, value: 0 };
        get_control(self, &mut record).map(|()| record.value)
    }

    /// Asks the driver for `count` buffers; gives how many there are. Zero returns them.
    pub fn request_buffers(&self, kind: Kind, count: u32) -> Result<u32, Errno> {
        let mut record =
            BufferRequest { count, kind: kind as u32, memory: MEMORY_MAPPED, ..Default::default() };
        request_buffers(self, &mut record)?;
        Ok(record.count)
    }

    /// Maps a buffer's memory, for reading.
    pub fn map_buffer(&self, kind: Kind, index: u32) -> Result<Mapping, Errno> {
        let mut plane = empty_plane();
        let mut record = buffer(kind, index, &mut plane);
        query_buffer(self, &mut record)?;
        // SAFETY: both unions are plain numbers, and the kernel has written the offset.
        let (offset, len) = match kind {
            Kind::Single => (unsafe { record.place.offset }, record.length),
            Kind::Planes => (unsafe { plane.place.offset }, plane.length),
        };
        Mapping::new(self, offset, len as usize)
    }

    /// Gives a buffer to the driver to be filled.
    pub fn queue(&self, kind: Kind, index: u32) -> Result<(), Errno> {
        let mut plane = empty_plane();
        queue_buffer(self, &mut buffer(kind, index, &mut plane))
    }

    /// Takes a filled buffer; `EAGAIN` when there is none.
    pub fn dequeue(&self, kind: Kind) -> Result<Filled, Errno> {
        let mut plane = empty_plane();
        let mut record = buffer(kind, 0, &mut plane);
        dequeue_buffer(self, &mut record)?;
        let (start, end) = match kind {
            Kind::Single => (0, record.bytes_used),
            // The bytes used count from the plane's beginning, with what stands before the frame.
            Kind::Planes => (plane.data_offset, plane.bytes_used),
        };
        let (seconds, micros) = (record.timestamp.tv_sec, record.timestamp.tv_usec);
        #[allow(clippy::unnecessary_cast)] // They are narrower on 32-bit systems.
        let taken = (seconds as u64).saturating_mul(1_000_000_000).saturating_add(micros as u64 * 1000);
        Ok(Filled {
            index: record.index,
            start: start as usize,
            len: end.saturating_sub(start) as usize,
            damaged: record.flags & BUFFER_ERROR != 0,
            taken_ns: (record.flags & TIMESTAMP_KIND == TIMESTAMP_MONOTONIC).then_some(taken),
        })
    }

    /// Starts the flow of frames. `EBUSY` when somebody else streams.
    pub fn start(&self, kind: Kind) -> Result<(), Errno> {
        stream_on(self, &mut (kind as u32))
    }

    /// Stops it; every buffer is ours again.
    pub fn stop(&self, kind: Kind) -> Result<(), Errno> {
        stream_off(self, &mut (kind as u32))
    }
}

fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let printable = |c: char| if c.is_control() { ' ' } else { c };
    String::from_utf8_lossy(&bytes[..end]).chars().map(printable).collect::<String>().trim().to_owned()
}

fn empty_plane() -> Plane {
    Plane { bytes_used: 0, length: 0, place: Place { user: 0 }, data_offset: 0, reserved: [0; 11] }
}

/// `plane` is written by the kernel where the device has planes, so it must live as long as the record.
fn buffer(kind: Kind, index: u32, plane: &mut Plane) -> Buffer {
    let (place, length) = match kind {
        Kind::Single => (Place { user: 0 }, 0),
        Kind::Planes => (Place { planes: plane }, 1),
    };
    Buffer {
        index,
        kind: kind as u32,
        bytes_used: 0,
        flags: 0,
        field: 0,
        timestamp: libc::timeval { tv_sec: 0, tv_usec: 0 },
        timecode: [0; 4],
        sequence: 0,
        memory: MEMORY_MAPPED,
        place,
        length,
        reserved: 0,
        request: 0,
    }
}

fn format_record(kind: Kind, format: FourCc, Size { width, height }: Size) -> Format {
    let mut data = FormatData { raw: [0; 200] };
    let (pixel_format, field) = (format.0, FIELD_NONE);
    match kind {
        Kind::Single => {
            data.single = PixelFormat { width, height, pixel_format, field, ..Default::default() }
        }
        Kind::Planes => {
            let num_planes = 1;
            data.planes =
                PixelFormatPlanes { width, height, pixel_format, field, num_planes, ..Default::default() }
        }
    }
    Format { kind: kind as u32, data }
}

fn layout(kind: Kind, record: &Format) -> Layout {
    // SAFETY: every field is a plain number, and all 200 bytes were written.
    let (width, height, format, field, stride, planes) = match kind {
        Kind::Single => {
            let single = unsafe { record.data.single };
            let PixelFormat { width, height, pixel_format, field, bytes_per_line, .. } = single;
            (width, height, pixel_format, field, bytes_per_line, 1)
        }
        Kind::Planes => {
            let several = unsafe { record.data.planes };
            let PixelFormatPlanes { width, height, pixel_format, field, planes, num_planes, .. } = several;
            (width, height, pixel_format, field, planes[0].bytes_per_line, num_planes)
        }
    };
    Layout {
        format: FourCc(format),
        size: Size { width, height },
        stride,
        planes,
        whole: field <= FIELD_NONE || field == FIELD_INTERLACED,
    }
}
