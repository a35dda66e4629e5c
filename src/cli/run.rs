//! `edgewarden run`: the agent, in the foreground, as systemd or a person starts it.

use super::log;
use crate::agent::{self, End};
use crate::config::{self, DEFAULT_PATH};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; drop-ins lie in config.d beside it
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_PATH, env = "EDGEWARDEN_CONFIG")]
    pub config: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// What kept the agent from starting, or made it give up.
pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = config::load(&args.config)?;
    log::start(&settings.log.filter, settings.log.format);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let end = runtime.block_on(agent::run(settings))?;
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match end {
        End::Stopped => Ok(()),
        // In place: the process id stays, so no supervisor is needed and none is confused.
        End::Restart => {
            let mut again = std::process::Command::new(std::env::current_exe()?);
            Err(again.args(std::env::args_os().skip(1)).exec().into())
        }
    }
}
