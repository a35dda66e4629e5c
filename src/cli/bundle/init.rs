//! `edgewarden bundle init`: from an ONNX file to a draft of a bundle.

use super::RuntimeArgs;
use crate::bundle::{self, MANIFEST, draft, onnx};
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
    // Everything that can fail for the model's sake comes before the first byte is written.
    let seen = inspect(&args.model, &args.runtime.settings()?)?;
    let header = onnx::header(&args.model)?;
    let guess = draft::decode(&seen.input, &seen.samples);
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

    if args.json {
        println!("{}", serde_json::to_string_pretty(&manifest)?);
    } else {
        explain(&args.dir, &manifest, &guess.why);
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if from.canonicalize().ok().is_some_and(|from| to.canonicalize().ok() == Some(from)) {
        return Ok(());
    }
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn explain(dir: &Path, manifest: &Manifest, why: &str) {
    let shown = dir.display();
    println!("Wrote {} from what the model shows:", dir.join(MANIFEST).display());
    for input in &manifest.inputs {
        println!("  input   {:?} {:?} {:?} {:?}", input.name, input.shape, input.element, input.layout);
    }
    println!("  outputs {why}");
    println!("What the model does not show, so look at it in {MANIFEST}:");
    println!("  name, version, license   as you want them");
    println!("  inputs.scale, mean, std  value = (pixel × scale − mean) ÷ std, as in training");
    println!("  inputs.color             rgb, bgr or grey");
    println!("  inputs.fit               \"stretch\", \"center_crop\", or letterbox with value and position");
    match &manifest.decode {
        Decode::Classification { .. } => {
            println!("  decode.activation        \"softmax\" for logits, \"none\" for probabilities");
        }
        Decode::BoxesScores { .. } => {
            println!("  decode.format, units     corners or center; normalized or pixels");
            println!(
                "  decode.background        the score column that means \"nothing\"; leave it out if none"
            );
            println!("  decode.keep              score_threshold, iou_threshold");
        }
        Decode::Yolo { .. } => {
            println!("  decode.version           v5, v8 (also v9, v11) or yolox");
            println!("  decode.keep              score_threshold, iou_threshold");
        }
        Decode::Raw { .. } => {
            println!("  decode                   classification, boxes_scores or yolo, if it is one of them");
        }
    }
    if !manifest.labels.is_empty() {
        println!("  labels                   {} class names, in order", manifest.labels.len());
    }
    println!("Next:");
    println!("  edgewarden predict {shown} PICTURE.jpg");
    println!("  edgewarden bundle check {shown}");
    println!("  edgewarden bundle golden {shown} PICTURE.jpg…   when the answers are right");
}
