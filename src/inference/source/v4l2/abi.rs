//! The records of the kernel's camera interface (`linux/videodev2.h`), as far as they are used here.
//!
//! The crates that wrap this interface generate the same records with bindgen, which needs libclang on
//! every machine that builds. The layouts are fixed for ever, and a test compares them with the numbers
//! of the kernel's own calls, which hold their sizes.

/// A fraction, as the kernel writes the time from one frame to the next, in seconds.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Fraction {
    pub numerator: u32,
    pub denominator: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Capability {
    pub driver: [u8; 16],
    pub card: [u8; 32],
    pub bus_info: [u8; 32],
    pub version: u32,
    pub capabilities: u32,
    pub device_caps: u32,
    pub reserved: [u32; 3],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FormatDescription {
    pub index: u32,
    pub kind: u32,
    pub flags: u32,
    pub description: [u8; 32],
    pub pixel_format: u32,
    pub mbus_code: u32,
    pub reserved: [u32; 3],
}

/// `size` is width and height where `kind` is discrete, else the least, greatest and step of the width,
/// then those of the height.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FrameSize {
    pub index: u32,
    pub pixel_format: u32,
    pub kind: u32,
    pub size: [u32; 6],
    pub reserved: [u32; 2],
}

/// `times` is one where `kind` is discrete, else the least, greatest and step.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct FrameInterval {
    pub index: u32,
    pub pixel_format: u32,
    pub width: u32,
    pub height: u32,
    pub kind: u32,
    pub times: [Fraction; 3],
    pub reserved: [u32; 2],
}

/// What `kind` of [`FrameSize`] and [`FrameInterval`] is for a single value.
pub const DISCRETE: u32 = 1;

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct PixelFormat {
    pub width: u32,
    pub height: u32,
    pub pixel_format: u32,
    pub field: u32,
    pub bytes_per_line: u32,
    pub size_image: u32,
    pub colorspace: u32,
    pub magic: u32,
    pub flags: u32,
    pub encoding: u32,
    pub quantization: u32,
    pub transfer: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct PlaneFormat {
    pub size_image: u32,
    pub bytes_per_line: u32,
    pub reserved: [u16; 6],
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct PixelFormatPlanes {
    pub width: u32,
    pub height: u32,
    pub pixel_format: u32,
    pub field: u32,
    pub colorspace: u32,
    pub planes: [PlaneFormat; 8],
    pub num_planes: u8,
    pub flags: u8,
    pub encoding: u8,
    pub quantization: u8,
    pub transfer: u8,
    pub reserved: [u8; 7],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub union FormatData {
    pub single: PixelFormat,
    pub planes: PixelFormatPlanes,
    pub raw: [u8; 200],
    /// The kernel's union also holds a record with pointers.
    pub align: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Format {
    pub kind: u32,
    pub data: FormatData,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct CaptureParameters {
    pub capability: u32,
    pub mode: u32,
    pub time_per_frame: Fraction,
    pub extended_mode: u32,
    pub read_buffers: u32,
    pub reserved: [[u32; 22]; 2],
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct StreamParameters {
    pub kind: u32,
    pub capture: CaptureParameters,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct ControlQuery {
    pub id: u32,
    pub kind: u32,
    pub name: [u8; 32],
    pub minimum: i32,
    pub maximum: i32,
    pub step: i32,
    pub default: i32,
    pub flags: u32,
    pub reserved: [u32; 2],
}

/// `name` is a 64-bit number in a menu of numbers.
#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct MenuQuery {
    pub id: u32,
    pub index: u32,
    pub name: [u8; 32],
    pub reserved: u32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct Control {
    pub id: u32,
    pub value: i32,
}

#[repr(C)]
#[derive(Clone, Copy, Default)]
pub struct BufferRequest {
    pub count: u32,
    pub kind: u32,
    pub memory: u32,
    pub capabilities: u32,
    pub flags: u32,
}

/// What lies behind a buffer or a plane: an offset to map, or the list of its planes.
#[repr(C)]
#[derive(Clone, Copy)]
pub union Place {
    pub offset: u32,
    pub planes: *mut Plane,
    pub user: usize,
}

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Plane {
    pub bytes_used: u32,
    pub length: u32,
    pub place: Place,
    pub data_offset: u32,
    pub reserved: [u32; 11],
}

/// The time stamp's size differs between 32-bit systems; the kernel tells them apart by the size of the
/// record.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Buffer {
    pub index: u32,
    pub kind: u32,
    pub bytes_used: u32,
    pub flags: u32,
    pub field: u32,
    pub timestamp: libc::timeval,
    pub timecode: [u32; 4],
    pub sequence: u32,
    pub memory: u32,
    pub place: Place,
    pub length: u32,
    pub reserved: u32,
    pub request: u32,
}

#[cfg(all(test, target_pointer_width = "64"))]
mod tests {
    use super::*;

    /// Bits 16 to 29 of a call's number are the size of its record; these are the kernel's numbers on
    /// 64-bit machines.
    #[test]
    fn the_records_have_the_kernels_sizes() {
        fn size<T>(number: u32) {
            let wanted = (number >> 16 & 0x3fff) as usize;
            assert_eq!(size_of::<T>(), wanted, "{} for {number:#x}", std::any::type_name::<T>());
        }
        size::<Capability>(0x8068_5600);
        size::<FormatDescription>(0xc040_5602);
        size::<Format>(0xc0d0_5605);
        size::<BufferRequest>(0xc014_5608);
        size::<Buffer>(0xc058_560f);
        size::<StreamParameters>(0xc0cc_5616);
        size::<Control>(0xc008_561c);
        size::<ControlQuery>(0xc044_5624);
        size::<MenuQuery>(0xc02c_5625);
        size::<FrameSize>(0xc02c_564a);
        size::<FrameInterval>(0xc034_564b);
        assert_eq!(size_of::<Plane>(), 64);
        assert_eq!(size_of::<PixelFormat>(), 48);
        assert_eq!(size_of::<PixelFormatPlanes>(), 192);
    }
}
