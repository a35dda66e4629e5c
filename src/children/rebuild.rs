//! The rebuild child: one file from a delta, which is hostile, and then it ends.
//!
//! It opens its three files, limits its own memory and what it may write, locks itself in with nothing that could be
//! opened any more, and only then reads the first byte of the delta. It says whether there is a file; that the file
//! is the signed one, the agent finds out. How long it may take is the agent's matter, too.

use crate::bundle::delta::{DeltaError, Old, OldFile, apply};
use crate::children::link::{Answers, first};
use crate::domain::delta::MEMORY;
use crate::domain::{Reason, ReasonCode};
use crate::process::protocol::{FromRebuild, ToRebuild};
use crate::sys::durable::{failed, is_disk_full};
use crate::sys::lockdown::{Role, lock_down};
use rustix::process::{Resource, Rlimit, setrlimit};
use std::fs::{File, OpenOptions};
use std::io::BufReader;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

/// Bytes that may still be logged.
const LOG_ROOM: u64 = 1 << 20;

/// Does what the first message says.
///
/// # Errors
/// Why there is no file; the agent has been told.
pub fn run(socket: UnixStream) -> Result<(), Reason> {
    let Some(message) = first::<ToRebuild>(&socket)? else { return Ok(()) };
    let mut answers = Answers::new(&socket)?;
    let result = rebuild(message);
    let answer = match &result {
        Ok(()) => FromRebuild::Rebuilt,
        Err(reason) => FromRebuild::Failed { reason: reason.clone() },
    };
    // A closed socket changes nothing: this is the end either way.
    let _ = answers.say(&answer);
    result
}

fn rebuild(message: ToRebuild) -> Result<(), Reason> {
    let ToRebuild::Configure { old, delta, out, size } = message;
    let old = match &old {
        Some(path) => Some(File::open(path).and_then(OldFile::new).map_err(failed("open", path))?),
        None => None,
    };
    let delta = File::open(&delta).map_err(failed("open", &delta))?;
    let mut out = OpenOptions::new().write(true).truncate(true).open(&out).map_err(failed("open", &out))?;
    limit(Resource::Data, MEMORY)?;
    limit(Resource::Fsize, size.max(log_length() + LOG_ROOM))?;
    lock_down(Role::Model, &[], &[]).tell("the rebuild");
    let old = old.as_ref().map(|old| old as &dyn Old);
    apply(old, &mut BufReader::new(delta), size, &mut out, &|_| {}).map_err(told)
}

/// Bytes of the log, where it is a file: the limit on files is one for all of them.
fn log_length() -> u64 {
    let log = std::io::stderr().as_fd().try_clone_to_owned().and_then(|fd| File::from(fd).metadata());
    log.map_or(0, |meta| if meta.is_file() { meta.len() } else { 0 })
}

fn limit(resource: Resource, most: u64) -> Result<(), Reason> {
    let limit = Rlimit { current: Some(most), maximum: Some(most) };
    setrlimit(resource, limit)
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("limit the rebuild process: {error}")))
}

fn told(error: DeltaError) -> Reason {
    let code = match &error {
        DeltaError::Malformed(_) => ReasonCode::Malformed,
        DeltaError::Size => ReasonCode::SizeMismatch,
        DeltaError::Memory => ReasonCode::OutOfMemory,
        DeltaError::Write(source) if is_disk_full(source) => ReasonCode::DiskFull,
        DeltaError::Read(_) | DeltaError::Old(_) | DeltaError::Write(_) => ReasonCode::Internal,
    };
    Reason::new(code, error.to_string())
}
