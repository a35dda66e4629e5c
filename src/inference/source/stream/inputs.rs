//! What a stream's program is given besides its arguments: the login, and the film.

use crate::domain::stream::{Login, StreamSettings};
use crate::domain::{Reason, ReasonCode};
use std::io::Read as _;
use std::path::Path;

/// Longest password, bytes.
const MAX_PASSWORD: u64 = 1024;

/// The login of a source that has one.
pub fn login(settings: &StreamSettings) -> Option<&Login> {
    match settings {
        StreamSettings::Rtsp { login, .. } | StreamSettings::HttpMjpeg { login, .. } => login.as_ref(),
        StreamSettings::Command { .. }
        | StreamSettings::Video { .. }
        | StreamSettings::CsiPi(_)
        | StreamSettings::CsiJetson(_) => None,
    }
}

/// The password in a file; a line break at its end is dropped.
///
/// # Errors
/// It cannot be read, or is no password.
pub fn password(file: &Path) -> Result<String, Reason> {
    let wrong = |why: String| {
        Reason::new(ReasonCode::BadRequest, format!("source.password_file {}: {why}", file.display()))
    };
    let mut text = String::new();
    std::fs::File::open(file)
        .and_then(|file| file.take(MAX_PASSWORD + 1).read_to_string(&mut text))
        .map_err(|e| wrong(format!("{e}; let the agent's user read it")))?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() || text.len() as u64 > MAX_PASSWORD || text.contains(char::is_control) {
        return Err(wrong(format!("is no password; write one line of at most {MAX_PASSWORD} bytes")));
    }
    Ok(text.to_owned())
}

/// Whether a video file can be opened.
///
/// # Errors
/// Why not.
pub fn readable(path: &Path) -> Result<(), Reason> {
    let wrong =
        |why: String| Reason::new(ReasonCode::BadRequest, format!("source video {}: {why}", path.display()));
    let file = std::fs::File::open(path).map_err(|e| wrong(format!("{e}; correct source.path")))?;
    let meta = file.metadata().map_err(|e| wrong(e.to_string()))?;
    match (meta.is_dir(), meta.len()) {
        (true, _) => Err(wrong("is a folder; name a video file, or use kind = \"folder\"".to_owned())),
        (false, 0) if meta.is_file() => Err(wrong("is empty; replace it".to_owned())),
        (false, _) => Ok(()),
    }
}
