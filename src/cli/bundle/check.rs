//! `edgewarden bundle check`: does the bundle hold together, and does its model run?

use super::{jpeg, slow_shapes, told, told_of};
use crate::bundle::intake::Finding;
use crate::bundle::{self, OpenBundle};
use crate::cli::exit::Told;
use crate::cli::runtime::RuntimeArgs;
use crate::cli::ui::{self, say};
use crate::domain::frame::FrameView;
use crate::domain::{FrameFormat, FrameMeta, Output, Reason, ReasonCode};
use crate::inference::{Engine, golden};
use crate::trust::model_signature;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle's folder
    dir: PathBuf,
    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
    /// Public key (PEM) that must have signed the model, as a device would have it in
    /// update.require_model_signature; may be given several times
    #[arg(long, value_name = "FILE")]
    model_signer: Vec<PathBuf>,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// What was found.
#[derive(Debug, Default, serde::Serialize)]
struct Findings {
    /// Good things, for people.
    passed: Vec<String>,
    /// Every fault.
    faults: Vec<Reason>,
    /// Not wrong, but worth a look.
    notes: Vec<String>,
    /// What makes the model slow.
    slow: Vec<Finding>,
    /// What `jpeg = "fast"` would change, where golden pictures are large enough to tell.
    #[serde(skip_serializing_if = "Option::is_none")]
    jpeg: Option<jpeg::Comparison>,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut found = Findings::default();
    examine(&args, &mut found);
    if args.json {
        ui::print_json(&found)?;
    } else {
        for line in &found.passed {
            say!("ok     {line}");
        }
        for line in &found.notes {
            say!("note   {line}");
        }
        if let Some(comparison) = &found.jpeg {
            say!("note   {}", comparison.told());
        }
        for finding in &found.slow {
            say!("slow   {}", told_of(finding));
        }
        for reason in &found.faults {
            say!("fault  {reason}");
        }
    }
    // The folder is its author's: no fault in it is a refusal for trust.
    if found.faults.is_empty() { Ok(()) } else { Err(Told.into()) }
}

fn examine(args: &Args, found: &mut Findings) {
    let mut bundle = match bundle::open(&args.dir, None) {
        Ok(bundle) => bundle,
        Err(reason) => return found.faults.push(reason),
    };
    if let Err(reason) = bundle.unlock(&args.runtime.model_key) {
        found.faults.push(reason);
    }
    let manifest = &bundle.manifest;
    let files = ui::count(manifest.files.len(), "file");
    found.passed.push(format!("{}: manifest and {files}", manifest.release()));
    signature(args, &bundle, found);
    if manifest.has_secret_model() && bundle.secrets.is_none() {
        return;
    }
    // Of a file that cannot be read the engine tells more.
    found.slow = slow_shapes(&bundle.model(), &manifest.inputs).unwrap_or_default();
    let engine = args.runtime.settings().and_then(|settings| Engine::load(&bundle, &settings));
    let mut engine = match engine {
        Ok(engine) => engine,
        Err(reason) => return found.faults.push(reason),
    };
    let report = engine.report().clone();
    found.passed.push(format!(
        "the model fits the manifest and runs on {} (ONNX Runtime {}, {:.0} ms to load)",
        report.provider.as_str(),
        report.runtime_version,
        report.load_ms
    ));
    found.notes.extend(report.fallback.map(|why| format!("not on the first provider: {why}")));
    match grey(&mut engine) {
        Ok(answer) => {
            let what = if manifest.series.is_some() { "window of zeros" } else { "grey picture" };
            found.passed.push(format!("a {what} gives {}", told(&answer)));
        }
        Err(reason) => found.faults.push(reason),
    }
    if manifest.golden.is_empty() {
        found
            .notes
            .push("no golden samples: a device will take it untried; see `edgewarden bundle golden`".into());
    } else {
        match golden::run_all(&mut engine, &bundle, |_, _| {}).0 {
            Ok(()) => {
                let samples = ui::count(manifest.golden.len(), "golden sample");
                found.passed.push(format!("{samples} answered as expected"));
            }
            Err(reason) => found.faults.push(reason),
        }
        match jpeg::compare(&mut engine, &bundle) {
            Ok(comparison) => found.jpeg = comparison,
            // The golden samples have told it already, or it is worth no more than a note.
            Err(reason) => found.notes.push(format!("jpeg = \"fast\" was not tried: {}", reason.detail)),
        }
    }
    if manifest.labels.iter().enumerate().any(|(class, label)| *label == format!("class {class}")) {
        found.notes.push("labels are still the draft's".into());
    }
}

/// The signature of the model's maker, where there is one or must be one.
fn signature(args: &Args, bundle: &OpenBundle, found: &mut Findings) {
    let manifest = &bundle.manifest;
    let path = bundle.file(model_signature::FILE);
    if !args.model_signer.is_empty() {
        match model_signature::check(&bundle.dir, manifest, &args.model_signer) {
            Ok(key) => found.passed.push(format!("the model is signed by key {key}")),
            Err(reason) => found.faults.push(reason),
        }
    } else if manifest.files.iter().any(|file| file.path == model_signature::FILE) {
        let read = std::fs::read(&path)
            .map_err(|error| Reason::new(ReasonCode::Internal, format!("read {}: {error}", path.display())));
        match read.and_then(|bytes| model_signature::is_about(&bytes, manifest)) {
            Ok(()) => found.passed.push(
                "model.sig is about these files; whose it is was not looked at (--model-signer)".into(),
            ),
            Err(reason) => {
                let detail = format!("{}: {}", path.display(), reason.detail);
                found.faults.push(Reason::new(reason.code, detail));
            }
        }
    }
}

/// Runs the model on a mid-grey picture of its own size, or on a window of zeros.
fn grey(engine: &mut Engine) -> Result<Output, Reason> {
    let meta = |width, height, format| FrameMeta {
        seq: 1,
        captured_unix_ns: 0,
        captured_mono_ns: 0,
        width,
        height,
        format,
    };
    if let Some(series) = &engine.manifest().series {
        let (channels, length) = series.size().unwrap_or_default();
        let meta = meta(length, channels, FrameFormat::Samples);
        let bytes = vec![0; length as usize * channels as usize * 4];
        return engine.run(FrameView { meta, bytes: &bytes }).map(|(output, _)| output);
    }
    let (width, height) = engine.manifest().inputs.first().and_then(|input| input.size()).unwrap_or((64, 64));
    let meta = meta(width, height, FrameFormat::Rgb8);
    let bytes = vec![128; width as usize * height as usize * 3];
    engine.run(FrameView { meta, bytes: &bytes }).map(|(output, _)| output)
}
