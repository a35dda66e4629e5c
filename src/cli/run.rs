//! `edgewarden run`: the agent, in the foreground, as systemd or a person starts it.

use super::log;
use crate::agent::remote::Remote;
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
    let here = Remote::new(&args.config);
    // A mark that cannot be written must not keep the agent down.
    let counted = here.starts();
    let settings = match config::load(&args.config) {
        // What was set from afar held when it was written; the machine around it may have changed.
        Err(faults) if here.give_up(&format!("the configuration does not hold any more: {faults}"))? => {
            config::load(&args.config)?
        }
        loaded => loaded?,
    };
    log::start(&settings.log.filter, settings.log.format);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    if let Err(reason) = counted {
        tracing::warn!("{reason}");
    }
    let end = runtime.block_on(agent::run(settings, args.config.clone()));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    let end = match end {
        Err(reason) if here.give_up(&format!("the agent did not start with it: {reason}"))? => End::Restart,
        ended => ended?,
    };
    match end {
        End::Stopped => Ok(()),
        // In place: the process id stays, so no supervisor is needed and none is confused.
        End::Restart => {
            let mut again = std::process::Command::new(std::env::current_exe()?);
            Err(again.args(std::env::args_os().skip(1)).exec().into())
        }
    }
}
