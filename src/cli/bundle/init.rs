//! `edgewarden bundle init`: from an ONNX file to a draft of a bundle.

use super::{slow_shapes, told_of};
use crate::bundle::intake::Finding;
use crate::bundle::{self, MANIFEST, draft, onnx};
use crate::cli::runtime::RuntimeArgs;
use crate::cli::ui::{self, say, word};
use crate::domain::manifest::Decode;
use crate::domain::{Manifest, ModelName};
use crate::inference::inspect::inspect;
use anyhow::Context;
use std::path::{Path, PathBuf};

/// The model's name inside the bundle.
const MODEL: &str = "model.onnx";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The ONNX file
    #[arg(value_name = "MODEL.onnx")]
    model: PathBuf,
    /// The bundle's folder; made when it is not there
    dir: PathBuf,
    /// The model's name [default: after the file]
    #[arg(long)]
    name: Option<ModelName>,
    /// Write over a bundle that is there
    #[arg(long)]
    force: bool,
    /// Print the draft as JSON instead of the explanation
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.dir.join(MANIFEST).exists() && !args.force {
        anyhow::bail!("{} holds a bundle already; give --force to write over it", args.dir.display());
    }
    if !args.model.is_file() {
        anyhow::bail!("{}: no such file; name the ONNX file to make a bundle of", args.model.display());
    }
    // Everything that can fail for the model's sake comes before the first byte is written.
    let seen = inspect(&args.model, &args.runtime.settings()?)?;
    let header = onnx::header(&args.model)?;
    let guess = seen.input.decode(&seen.samples);
    let stem = args.model.file_stem().and_then(|stem| stem.to_str()).unwrap_or("model");
    let name = args.name.unwrap_or_else(|| draft::name_of(stem));
    let mut manifest = draft::manifest(name, MODEL, seen.input, &guess, &header);

    std::fs::create_dir_all(&args.dir).with_context(|| format!("make folder {}", args.dir.display()))?;
    copy(&args.model, &args.dir.join(MODEL))?;
    for path in &header.external {
        bundle::path::check(path)?;
        let from = args.model.with_file_name(path);
        let to = args.dir.join(path);
        if let Some(folder) = to.parent() {
            std::fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
        }
        copy(&from, &to)?;
    }
    bundle::write_manifest(&args.dir, &manifest)?;
    manifest = bundle::seal(&args.dir)?;

    let slow = slow_shapes(&args.model, &manifest.inputs)?;
    if args.json {
        let mut draft = serde_json::to_value(&manifest)?;
        draft["slow"] = serde_json::to_value(&slow)?;
        say!("{}", serde_json::to_string_pretty(&draft)?);
        return Ok(());
    }
    explain(&args.dir, &manifest, &guess.why, &slow)
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.canonicalize().ok().is_some_and(|from| to.canonicalize().ok() == Some(from)) {
        return Ok(());
    }
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn explain(dir: &Path, manifest: &Manifest, why: &str, slow: &[Finding]) -> anyhow::Result<()> {
    let shown = dir.display();
    say!("Wrote {} from what the model shows:", dir.join(MANIFEST).display());
    for input in &manifest.inputs {
        let (element, layout) = (word(&input.element), word(&input.layout));
        say!("  input   {:?} {:?} {element} {layout}", input.name, input.shape);
    }
    if let Some(series) = &manifest.series {
        let (channels, length) = series.size().unwrap_or_default();
        let (element, layout) = (word(&series.element), word(&series.layout));
        say!("  series  {:?}: {channels} channels of {length} samples, {element} {layout}", series.name);
    }
    say!("  outputs {why}");
    say!("What the model does not show, so look at it in {MANIFEST}:");
    say!("  name, version, license   as you want them");
    if manifest.series.is_some() {
        say!("  series.shape, layout     where the model leaves an axis open; ncl or nlc");
        say!("  series.scale, mean, std  value = (sample × scale − mean) ÷ std, as in training");
        say!("  series.channels, gap     names in order; hold, zero or refuse where samples are missing");
    } else {
        say!("  inputs.scale, mean, std  value = (pixel × scale − mean) ÷ std, as in training");
        say!("  inputs.color             rgb, bgr or grey");
        say!("  inputs.fit               \"stretch\", \"center_crop\", or letterbox with value and position");
    }
    match &manifest.decode {
        Decode::Classification { .. } => {
            say!("  decode.activation        \"softmax\" for logits, \"none\" for probabilities");
        }
        Decode::BoxesScores { .. } => {
            say!("  decode.format, units     corners or center; normalized or pixels");
            say!("  decode.background        the score column that means \"nothing\"; leave it out if none");
            say!("  decode.keep              score_threshold, iou_threshold");
        }
        Decode::Yolo { .. } => {
            say!("  decode.version           v5, v8 (also v9, v11) or yolox");
            say!("  decode.keep              score_threshold, iou_threshold");
        }
        Decode::Detr { .. } => {
            say!("  decode.activation        softmax with background (DETR) or sigmoid (RT-DETR)");
        }
        Decode::Values { .. } => {
            say!("  decode.values            name, unit, scale and offset of each number");
        }
        Decode::Anomaly { .. } => {
            say!("  decode.metric, threshold mse or mae; the error above which a window is an anomaly");
        }
        Decode::Raw { .. } => {
            say!(
                "  decode                   classification, boxes_scores, yolo, detr, values or anomaly, if it is one"
            );
        }
    }
    if !manifest.labels.is_empty() {
        say!("  labels                   {}, in order", ui::count(manifest.labels.len(), "class name"));
    }
    if !slow.is_empty() {
        say!("What makes it slow:");
        for finding in slow {
            say!("  {}", told_of(finding));
        }
    }
    let given = if manifest.series.is_some() { "WINDOW.csv" } else { "PICTURE.jpg" };
    say!("Next:");
    say!("  edgewarden predict {shown} {given}");
    say!("  edgewarden bundle check {shown}");
    say!("  edgewarden bundle golden {shown} {given}…   when the answers are right");
    Ok(())
}
