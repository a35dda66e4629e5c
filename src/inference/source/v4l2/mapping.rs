//! The memory of a camera's buffers.

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags};
use std::os::fd::AsFd;

/// A buffer's memory, shared with the driver.
pub struct Mapping {
    memory: *mut std::ffi::c_void,
    len: usize,
}

// SAFETY: it is memory that belongs to the process, not to a thread.
unsafe impl Send for Mapping {}

impl Mapping {
    /// Maps a buffer of a camera.
    pub(super) fn new(device: impl AsFd, offset: u32, len: usize) -> Result<Self, Errno> {
        // SAFETY: a new mapping at an address of the kernel's choice; it is undone in `drop` only.
        let memory = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                device,
                u64::from(offset),
            )
        }?;
        Ok(Self { memory, len })
    }

    /// The bytes. Only while the buffer is dequeued: the driver writes to it at other times.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is readable, `len` long, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.memory.cast(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: made in `new`, and nobody can hold a slice of it any more. It cannot fail for a
        // mapping that exists.
        let _ = unsafe { rustix::mm::munmap(self.memory, self.len) };
    }
}
