//! Log lines of the agent and its children: on standard error, filtered, alike.

use crate::config::settings::LogFormat;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// The environment variable with the filter of log lines; it wins over the configuration, and children
/// inherit it.
pub const LOG: &str = "EDGEWARDEN_LOG";

/// Begins to log; `filter` holds where [`LOG`] names none. Colours only on a terminal.
pub fn start(filter: &str, format: LogFormat) {
    let filter = EnvFilter::try_from_env(LOG).unwrap_or_else(|_| EnvFilter::new(filter));
    let colours = std::io::stderr().is_terminal();
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A line that cannot be written (standard error may be a file on a full disk) is lost; told there, it
    // would be a panic of whoever had something to say.
    let lines = lines.with_target(false).with_ansi(colours).log_internal_errors(false);
    // Both fail only where it was done before, which is as good.
    let _ = match format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
}
