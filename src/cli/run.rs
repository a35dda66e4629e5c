//! `edgewarden run`: the agent, in the foreground, as systemd or a person starts it.

use crate::agent::{self, End};
use crate::config::settings::{LogFormat, LogSettings};
use crate::config::{self, DEFAULT_PATH};
use std::io::IsTerminal;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

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
    log(&settings.log);
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

/// Log lines go to standard error; `EDGEWARDEN_LOG` wins over the configuration.
fn log(settings: &LogSettings) {
    let filter =
        EnvFilter::try_from_env(super::child::LOG).unwrap_or_else(|_| EnvFilter::new(&settings.filter));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let lines = lines.with_target(false).with_ansi(colours);
    // Both fail only where it was done before, which is as good.
    let _ = match settings.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
