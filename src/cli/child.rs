//! `edgewarden child`: what the agent starts; of no use to people.

use super::exit::{Told, Usage};
use super::log;
use crate::children::{capture, infer, rebuild};
use crate::config::settings::LogFormat;
use crate::domain::{Reason, ReasonCode};
use crate::process::codec::Writer;
use crate::process::protocol::{FromCapture, FromInfer, FromRebuild};
use rustix::fs::FileType;
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::Serialize;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Read a source and publish its frames
    Capture,
    /// Run a model on frames
    Infer,
    /// Put a file together from a delta
    Rebuild,
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<()> {
    let socket = socket()?;
    // For `top` and the like, which else show the last part of the path that it was started by.
    let _ = rustix::thread::set_name(c"edgewarden");
    // Before anything else: an agent that is killed must leave nobody behind who holds the camera or
    // the GPU. One that was killed before this line has closed the socket.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    log::start("info", LogFormat::Text);
    let result = match command {
        Command::Capture => guarded(socket, capture::run, |reason| FromCapture::Failed { reason }),
        Command::Infer => guarded(socket, infer::run, |reason| FromInfer::Failed { reason }),
        Command::Rebuild => guarded(socket, rebuild::run, |reason| FromRebuild::Failed { reason }),
    };
    result.map_err(|reason| {
        tracing::error!("{reason}");
        Told.into()
    })
}

/// Standard input, which the agent made a socket.
fn socket() -> anyhow::Result<UnixStream> {
    let stdin = std::io::stdin();
    let kind = rustix::fs::fstat(&stdin).map(|stat| FileType::from_raw_mode(stat.st_mode));
    if kind != Ok(FileType::Socket) {
        return Err(
            Usage("this command is for the agent, which starts it by itself; use `run`".to_owned()).into()
        );
    }
    Ok(UnixStream::from(stdin.as_fd().try_clone_to_owned()?))
}

/// Runs a child's main; a panic in it becomes a reason that the agent is told.
fn guarded<Out: Serialize>(
    socket: UnixStream,
    main: impl FnOnce(UnixStream) -> Result<(), Reason>,
    failed: impl FnOnce(Reason) -> Out,
) -> Result<(), Reason> {
    let spare = socket.try_clone();
    let place = Arc::new(Mutex::new(String::new()));
    let noted = place.clone();
    std::panic::set_hook(Box::new(move |panic| {
        let text = panic.to_string().replace('\n', " ");
        tracing::error!("{text}");
        *noted.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }));
    catch_unwind(AssertUnwindSafe(|| main(socket))).unwrap_or_else(|_| {
        let text = place.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let reason =
            Reason::new(ReasonCode::Internal, format!("a fault in the child, please report it: {text}"));
        if let Ok(spare) = spare {
            // Nobody may listen any more; the line above is in the log.
            let _ = Writer::new(spare).write(&failed(reason.clone()));
        }
        Err(reason)
    })
}
