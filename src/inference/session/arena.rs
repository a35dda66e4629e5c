//! A limit for the memory that the processor's arena may take.
//!
//! The runtime limits only an arena that all sessions of a process share, so one is registered with the
//! environment, once; an inference process has one model. The binding has no words for this, hence its raw
//! functions.

use super::fault::{failed, message};
use crate::domain::Reason;
use crate::domain::runtime::{ArenaGrowth, CpuTuning};
use ort::AsPointer;
use ort::environment::Environment;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// The limit and growth that this process has registered.
static REGISTERED: Mutex<Option<(u64, Option<ArenaGrowth>)>> = Mutex::new(None);

/// True when sessions are to use the shared arena, which is then registered.
///
/// # Errors
/// `LoadFailed` when the runtime refuses, or when this process has another limit already.
pub(super) fn share(environment: &Environment, cpu: &CpuTuning) -> Result<bool, Reason> {
    if cpu.arena == Some(false) || (cpu.arena_limit.is_none() && cpu.arena_growth.is_none()) {
        return Ok(false);
    }
    // The runtime takes 0 for no limit.
    let wanted = (cpu.arena_limit.unwrap_or(0), cpu.arena_growth);
    let mut registered = REGISTERED.lock().unwrap_or_else(PoisonError::into_inner);
    match *registered {
        Some(has) if has == wanted => return Ok(true),
        Some(_) => {
            return Err(failed("memory arena: this process has another limit already; restart it".into()));
        }
        None => {}
    }
    register(environment, wanted)
        .map_err(|error| failed(format!("limit the memory arena: {}", message(&error))))?;
    *registered = Some(wanted);
    Ok(true)
}

fn register(
    environment: &Environment,
    (limit, growth): (u64, Option<ArenaGrowth>),
) -> Result<(), ort::Error> {
    let keys = [c"max_mem".as_ptr(), c"arena_extend_strategy".as_ptr()];
    let growth = usize::from(growth == Some(ArenaGrowth::AsRequested));
    let values = [usize::try_from(limit).unwrap_or(usize::MAX), growth];
    let api = ort::api();
    let mut arena = ptr::null_mut();
    let mut info = ptr::null_mut();
    // SAFETY: keys and values are as long as said and outlive the call, the texts end with a null, and
    // `arena` takes the result.
    let made = unsafe { (api.CreateArenaCfgV2)(keys.as_ptr(), values.as_ptr(), keys.len(), &mut arena) };
    // SAFETY: a status that the runtime has just given; it is freed by this.
    unsafe { ort::Error::result_from_status(made) }?;
    // SAFETY: `info` takes the result.
    let described = unsafe {
        (api.CreateCpuMemoryInfo)(
            ort::sys::OrtAllocatorType::OrtArenaAllocator,
            ort::sys::OrtMemType::OrtMemTypeDefault,
            &mut info,
        )
    };
    // SAFETY: as above.
    let mut result = unsafe { ort::Error::result_from_status(described) };
    if result.is_ok() {
        // SAFETY: the environment lives as long as the process (a static holds it); the runtime copies
        // what both others say.
        let registered =
            unsafe { (api.CreateAndRegisterAllocator)(environment.ptr().cast_mut(), info, arena) };
        // SAFETY: as above.
        result = unsafe { ort::Error::result_from_status(registered) };
        // SAFETY: made above and not used again.
        unsafe { (api.ReleaseMemoryInfo)(info) };
    }
    // SAFETY: made above and not used again.
    unsafe { (api.ReleaseArenaCfg)(arena) };
    result
}
