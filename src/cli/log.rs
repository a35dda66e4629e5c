//! Log lines of the agent and its children: on standard error, filtered, alike.

use crate::config::settings::LogFormat;
use crate::telemetry::log::Keep;
use std::io::IsTerminal;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// The environment variable with the filter of log lines; it wins over the configuration, and children
/// inherit it.
pub const LOG: &str = "EDGEWARDEN_LOG";

/// Begins to log; `filter` holds where [`LOG`] names none. Colours only on a terminal.
pub fn start(filter: &str, format: LogFormat) {
    let wanted = std::env::var(LOG).ok().and_then(|wanted| wanted.parse().ok());
    let filter: Targets = wanted.or_else(|| filter.parse().ok()).unwrap_or_default();
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_max_level(LevelFilter::TRACE).with_writer(std::io::stderr);
    // A line that cannot be written (standard error may be a file on a full disk) is lost; told there, it
    // would be a panic of whoever had something to say.
    let lines = lines.with_target(false).with_ansi(colours).log_internal_errors(false);
    // The newest stay in memory too, for the `logs` command.
    // Both fail only where it was done before, which is as good.
    let _ = match format {
        LogFormat::Text => lines.finish().with(Keep).with(filter).try_init(),
        LogFormat::Json => lines.json().finish().with(Keep).with(filter).try_init(),
    };
}
