//! `edgewarden bundle show`: what a bundle says of itself.

use crate::bundle;
use crate::domain::Manifest;
use crate::domain::manifest::Decode;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle: its folder or a `.bundle` file
    bundle: PathBuf,
    /// Print the manifest and its digest as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let place = super::super::predict::Place::of(&args.bundle)?;
    let (manifest, digest) = bundle::read(place.dir())?;
    if args.json {
        println!(
            "{}",
            serde_json::to_string_pretty(&serde_json::json!({"digest": digest, "manifest": manifest}))?
        );
        return Ok(());
    }
    println!("{}  {}", manifest.release(), manifest.description);
    println!("digest   {digest}");
    if !manifest.license.is_empty() {
        println!("license  {}", manifest.license);
    }
    for input in &manifest.inputs {
        println!(
            "input    {:?} {:?} {:?} {:?} {:?} {:?}",
            input.name, input.shape, input.element, input.layout, input.color, input.fit
        );
    }
    println!("decode   {}", decoding(&manifest));
    println!("labels   {}", shortened(&manifest.labels));
    println!("golden   {} samples", manifest.golden.len());
    let needs = serde_json::to_string(&manifest.needs)?;
    println!("needs    {needs}");
    let mut table = comfy_table::Table::new();
    table.load_preset(comfy_table::presets::NOTHING).set_header(["file", "bytes", "sha256"]);
    for file in &manifest.files {
        table.add_row([file.path.clone(), file.size.to_string(), file.sha256.to_string()]);
    }
    println!("{table}");
    Ok(())
}

fn decoding(manifest: &Manifest) -> String {
    match &manifest.decode {
        Decode::Classification { output, activation, top_k, score_threshold } => {
            format!(
                "classification of {output:?} ({activation:?}), best {top_k} at or above {score_threshold}"
            )
        }
        Decode::BoxesScores { boxes, scores, format, units, background: _, keep } => format!(
            "boxes {boxes:?} ({format:?}, {units:?}) with scores {scores:?} at or above {}",
            keep.score_threshold
        ),
        Decode::Yolo { version, output, keep } => {
            format!("yolo {version:?} of {output:?}, scores at or above {}", keep.score_threshold)
        }
        Decode::Raw { outputs } if outputs.is_empty() => "raw, all outputs".into(),
        Decode::Raw { outputs } => format!("raw, {}", outputs.join(", ")),
    }
}

fn shortened(labels: &[String]) -> String {
    match labels {
        [] => "none; classes are shown by their numbers".into(),
        few if few.len() <= 8 => few.join(", "),
        many => format!("{}, … ({} in all)", many[..8].join(", "), many.len()),
    }
}
