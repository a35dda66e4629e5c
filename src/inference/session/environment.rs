//! The one environment and the one library of this process.
//!
//! A second library is an error here, because the binding would silently go on with the first.

use super::fault::{failed, message};
use crate::domain::Reason;
use crate::inference::library;
use ort::environment::Environment;
use ort::logging::LogLevel;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// The library of this process, once it is loaded.
struct Runtime {
    library: PathBuf,
    version: String,
    environment: Environment,
}

static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// The environment and the version of the library at `path`, which is loaded for good.
pub(super) fn environment(path: &Path) -> Result<(Environment, String), Reason> {
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    // The binding searches relative paths beside the program first; ours mean the current folder.
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    if let Some(runtime) = &*runtime {
        return if runtime.library == path {
            Ok((runtime.environment.clone(), runtime.version.clone()))
        } else {
            Err(failed(format!(
                "ONNX Runtime library {}: this process runs {} already; restart it for another one",
                path.display(),
                runtime.library.display()
            )))
        };
    }
    let version = library::probe(&path)?;
    // `Debug`: `Display` of this error leaves out the cause.
    let builder = ort::init_from(&path)
        .map_err(|error| failed(format!("ONNX Runtime library {}: {error:?}", path.display())))?;
    let environment = builder
        .with_name("edgewarden")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|error| failed(format!("start ONNX Runtime {}: {}", path.display(), message(&error))))?;
    environment.set_log_level(LogLevel::Warning);
    *runtime = Some(Runtime { library: path, version: version.clone(), environment: environment.clone() });
    Ok((environment, version))
}

fn log(level: LogLevel, category: &str, _id: &str, location: &str, text: &str) {
    match level {
        // What went wrong comes back as an error as well, and is reported from there.
        LogLevel::Fatal | LogLevel::Error | LogLevel::Warning => {
            tracing::debug!(target: "onnxruntime", ?level, category, location, "{text}");
        }
        LogLevel::Info | LogLevel::Verbose => {
            tracing::trace!(target: "onnxruntime", ?level, category, location, "{text}");
        }
    }
}
