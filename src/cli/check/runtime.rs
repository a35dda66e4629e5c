//! What the check sees of ONNX Runtime: does the library load, and does each configured provider
//! really run a model? Each is tried in a process of its own, because a driver may crash or hang.

use super::Finding;
use crate::cli::apart::ended_within;
use crate::config::settings::RuntimeSection;
use crate::domain::manifest::Provider;
use crate::domain::runtime::{RuntimeSettings, Tuning};
use crate::domain::{Reason, ReasonCode};
use crate::inference::{inspect, library};
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// A first start of TensorRT on a small board takes the better part of a minute.
const PATIENCE: Duration = Duration::from_secs(120);

/// What the child process answers.
#[derive(Debug, Serialize, Deserialize)]
pub struct Probe {
    /// The library's version, or why it does not load.
    version: Result<String, Reason>,
    /// Why the provider does not run a model; absent where it does, or where the library does not load.
    provider_fault: Option<Reason>,
}

/// The library and every provider, in the configured order.
pub fn library(settings: &RuntimeSection) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, provider) in settings.providers.iter().enumerate() {
        let subject = format!("provider {}", provider.as_str());
        let needed = index == 0 && settings.required;
        let refused = |detail: String| {
            if needed { Finding::fail(&subject, detail) } else { Finding::warn(&subject, detail) }
        };
        match probe_apart(&settings.library, *provider) {
            Ok(Probe { version: Err(reason), .. }) => {
                // Nothing can be said of the others then.
                return vec![Finding::fail("ONNX Runtime", reason.detail)];
            }
            Ok(Probe { version: Ok(version), provider_fault }) => {
                if index == 0 {
                    findings.push(Finding::ok(
                        "ONNX Runtime",
                        format!("{}: {version}", settings.library.display()),
                    ));
                }
                findings.push(match provider_fault {
                    None => Finding::ok(&subject, "runs a model"),
                    Some(reason) => refused(format!(
                        "{}; install what it needs, or take it out of runtime.providers",
                        reason.detail
                    )),
                });
            }
            Err(detail) => findings.push(refused(detail)),
        }
    }
    let runs =
        |finding: &Finding| finding.subject.starts_with("provider ") && finding.level == super::Level::Ok;
    if !findings.iter().any(runs) && !settings.providers.contains(&Provider::Cpu) && !settings.required {
        // The agent then falls back to the processor, which must work.
        let cpu = RuntimeSection { providers: vec![Provider::Cpu], required: true, ..settings.clone() };
        findings.extend(library(&cpu).into_iter().skip(usize::from(!findings.is_empty())));
    }
    findings
}

/// Runs this program as a child that loads the library; what it says, or how it ended.
fn probe_apart(library: &Path, provider: Provider) -> Result<Probe, String> {
    let shown = library.display();
    let program = std::env::current_exe().map_err(|error| format!("cannot find this program: {error}"))?;
    let mut child = Command::new(program)
        .args(["check", "--probe"])
        .arg(library)
        .arg(provider.as_str())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start a process to load {shown}: {error}"))?;
    let status = match ended_within(&mut child, PATIENCE) {
        Ok(Some(status)) => status,
        Ok(None) => {
            let seconds = PATIENCE.as_secs();
            return Err(format!("{shown} hangs for more than {seconds} s; look at the driver with dmesg"));
        }
        Err(error) => return Err(format!("wait for the process that loads {shown}: {error}")),
    };
    // One line, far smaller than the pipe's buffer: the child never waits for us.
    let mut answer = String::new();
    if let Some(out) = child.stdout.take() {
        let _ = out.take(1 << 16).read_to_string(&mut answer);
    }
    serde_json::from_slice(answer.as_bytes()).map_err(|_| {
        format!(
            "loading {shown} ended the process ({status}); install a release of the library for this machine"
        )
    })
}

/// The child's part: loads the library for good, and runs a model of one operator.
pub fn probe_here(path: &Path, provider: &str) -> Probe {
    let version = library::probe(path);
    let provider_fault = match (&version, super::provider(provider)) {
        (Err(_), _) => None,
        (Ok(_), Some(provider)) => run_model(path, provider).err(),
        (Ok(_), None) => {
            Some(Reason::new(ReasonCode::BadRequest, format!("provider \"{provider}\" is not known")))
        }
    };
    Probe { version, provider_fault }
}

fn run_model(path: &Path, provider: Provider) -> Result<(), Reason> {
    let folder = tempfile::tempdir()
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("make a temporary folder: {error}")))?;
    let model = folder.path().join("relu.onnx");
    std::fs::write(&model, relu())
        .map_err(|error| Reason::new(ReasonCode::Internal, format!("write {}: {error}", model.display())))?;
    let settings = RuntimeSettings {
        library: path.to_owned(),
        providers: vec![provider],
        required: true,
        intra_threads: Some(1),
        engine_cache: folder.path().to_owned(),
        tuning: Tuning::default(),
    };
    inspect::inspect(&model, &settings).map(drop)
}

/// An ONNX model `y = Relu(x)` of shape [1, 3, 8, 8], IR version 8, opset 13. Field numbers are those
/// of `onnx.proto3`.
fn relu() -> Vec<u8> {
    fn varint(field: u8, value: u8) -> Vec<u8> {
        vec![field << 3, value]
    }
    fn bytes(field: u8, content: &[u8]) -> Vec<u8> {
        // Every part is shorter than 128 bytes, so that its length is one byte.
        let mut part = vec![field << 3 | 2, content.len() as u8];
        part.extend_from_slice(content);
        part
    }
    let shape: Vec<u8> = [1, 3, 8, 8].into_iter().flat_map(|size| bytes(1, &varint(1, size))).collect();
    let tensor = [varint(1, 1), bytes(2, &shape)].concat();
    let port = |name: &[u8]| [bytes(1, name), bytes(2, &bytes(1, &tensor))].concat();
    let node = [bytes(1, b"x"), bytes(2, b"y"), bytes(4, b"Relu")].concat();
    let graph = [bytes(1, &node), bytes(2, b"g"), bytes(11, &port(b"x")), bytes(12, &port(b"y"))].concat();
    [varint(1, 8), bytes(7, &graph), bytes(8, &varint(2, 13))].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probes_model_is_read_as_what_it_is() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), relu()).unwrap();
        let header = crate::bundle::onnx::header(file.path()).unwrap();
        assert_eq!((header.ir_version, header.opset), (Some(8), Some(13)));
        // A length of more than one byte would break the encoding above.
        assert!(relu().len() < 128 + 10, "{}", relu().len());
    }

    #[test]
    fn a_missing_library_is_told_by_the_child() {
        let probe = probe_here(Path::new("/nowhere/libonnxruntime.so"), "cpu");
        assert!(probe.version.unwrap_err().detail.contains("/nowhere/libonnxruntime.so"));
        assert!(probe.provider_fault.is_none());
    }
}
