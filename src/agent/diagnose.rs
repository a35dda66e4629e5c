//! What `edgewarden check` says on this device, asked from afar. It runs as a process of its own with a time limit: it
//! loads the runtime's library and speaks to servers, and nothing of that may hang or end the agent.

use super::assemble::OWN_PROGRAM;
use crate::domain::{Reason, ReasonCode};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

/// The check's own waits are shorter.
const LIMIT: Duration = Duration::from_secs(90);
/// Most that it may print, bytes: it must fit into a message.
const MAX_OUTPUT: u64 = 100 << 10;

/// Runs the check on this configuration.
///
/// # Errors
/// `ChildHung` when it takes too long; `Internal` when it does not answer as it should.
pub async fn diagnose(config: &Path) -> Result<Value, Reason> {
    let told = |what: String| Reason::new(ReasonCode::Internal, format!("diagnose: {what}"));
    let mut child = Command::new(OWN_PROGRAM)
        .args(["check", "--json", "--config"])
        .arg(config)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| told(format!("start the check: {error}")))?;
    let mut output = Vec::new();
    let read = async {
        if let Some(stdout) = child.stdout.take() {
            stdout.take(MAX_OUTPUT).read_to_end(&mut output).await?;
        }
        child.wait().await
    };
    let ended = tokio::time::timeout(LIMIT, read).await.map_err(|_| {
        let detail = format!("diagnose: the check took more than {} s and was ended", LIMIT.as_secs());
        Reason::new(ReasonCode::ChildHung, detail)
    })?;
    let status = ended.map_err(|error| told(format!("hear the check: {error}")))?;
    // Its exit status tells whether something would not run, which its answer tells too.
    serde_json::from_slice(&output).map_err(|error| told(format!("the check ended with {status}: {error}")))
}
