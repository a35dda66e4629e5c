//! What the check says of a source that another program reads: which program, its whole command, and
//! what is missing.

use super::Finding;
use crate::cli::apart::ended_within;
use crate::domain::Reason;
use crate::domain::stream::StreamSettings;
use crate::inference::source::program;
use crate::inference::source::stream::presets::{self, DECODERS, Launch};
use crate::inference::source::stream::tools::Tools;
use crate::inference::source::stream::{login, password, readable};
use std::process::{Command, Stdio};
use std::time::Duration;

/// GStreamer makes a list of its elements at the first question, which takes a while on a small board.
const INSPECT: Duration = Duration::from_secs(30);

/// What was seen, worst first: the source itself, then what could be better.
pub fn source(subject: &str, settings: &StreamSettings) -> Vec<Finding> {
    let launch = match launch(settings) {
        Ok(launch) => launch,
        Err(reason) => return vec![Finding::fail(subject, reason.detail)],
    };
    let mut findings = Vec::new();
    if program::find(&launch.line.program).is_none() {
        let detail = format!("the program {} is not there; {}", launch.line.program, launch.remedy());
        findings.push(Finding::fail(subject, detail));
    }
    findings.extend(elements(&launch).into_iter().map(|detail| Finding::fail(subject, detail)));
    if findings.is_empty() {
        // Whole, so that it can be tried by hand, and changed with kind = "command".
        findings.push(Finding::ok(
            subject,
            format!("{}, read by: {}{}", settings.kind(), launch.line, stdin(&launch)),
        ));
    }
    findings.extend(launch.notes.iter().map(|note| Finding::warn(subject, note)));
    findings
}

fn launch(settings: &StreamSettings) -> Result<Launch, Reason> {
    if let StreamSettings::Video { path, .. } = settings {
        readable(path)?;
    }
    let password = login(settings).map(|login| password(&login.password_file)).transpose()?;
    presets::expand(settings, &Tools::here(), password.as_deref())
}

fn stdin(launch: &Launch) -> &'static str {
    if launch.line.stdin.is_some() {
        " (its address or user, with the password, on standard input)"
    } else {
        ""
    }
}

/// What GStreamer lacks for this command.
fn elements(launch: &Launch) -> Vec<String> {
    let needed = presets::needed(launch);
    let mut missing: Vec<String> = needed
        .iter()
        .filter(|element| exists(element) == Some(false))
        .map(|element| {
            let remedy = presets::package(element)
                .map_or("install the plugin that has it".to_owned(), |package| {
                    format!("apt install {package}")
                });
            format!("GStreamer has no element {element}; {remedy}")
        })
        .collect();
    let decodes = needed.iter().any(|element| element == "decodebin");
    if decodes && missing.is_empty() && DECODERS.iter().all(|element| exists(element) == Some(false)) {
        missing.push("GStreamer has no decoder for H.264; apt install gstreamer1.0-libav".to_owned());
    }
    missing
}

/// `None`: it could not be asked.
fn exists(element: &str) -> Option<bool> {
    let mut asked = Command::new("gst-inspect-1.0")
        .args(["--exists", element])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    ended_within(&mut asked, INSPECT).ok()?.map(|status| status.success())
}
