//! `edgewarden bundle show`: what a bundle says of itself.

use crate::bundle;
use crate::cli::exit::Own;
use crate::cli::predict::Place;
use crate::cli::ui::{self, say, word};
use crate::domain::Manifest;
use crate::domain::manifest::Decode;
use serde_json::json;
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
    let place = Place::of(&args.bundle)?;
    let (manifest, digest) = match &place {
        Place::Folder(dir) => bundle::read(dir).map_err(Own)?,
        Place::Unpacked(dir) => bundle::read(dir.path())?,
    };
    if args.json {
        say!("{}", serde_json::to_string_pretty(&json!({"digest": digest, "manifest": manifest}))?);
        return Ok(());
    }
    say!("{}  {}", manifest.release(), manifest.description);
    say!("digest   {digest}");
    if !manifest.license.is_empty() {
        say!("license  {}", manifest.license);
    }
    for input in &manifest.inputs {
        let (element, layout) = (word(&input.element), word(&input.layout));
        let (color, fit) = (word(&input.color), word(&input.fit));
        say!("input    {:?} {:?} {element} {layout} {color} {fit}", input.name, input.shape);
    }
    if let Some(series) = &manifest.series {
        let (element, layout, gap) = (word(&series.element), word(&series.layout), word(&series.gap));
        say!("series   {:?} {:?} {element} {layout}, gaps: {gap}", series.name, series.shape);
    }
    say!("decode   {}", decoding(&manifest));
    say!("labels   {}", shortened(&manifest.labels));
    say!("golden   {}", ui::count(manifest.golden.len(), "sample"));
    say!("needs    {}", serde_json::to_string(&manifest.needs)?);
    if let Some(encryption) = &manifest.encryption {
        say!("secret   the model; for {}", shortened(&encryption.recipients));
    }
    let mut table = ui::table(&["FILE", "BYTES", "SHA-256"]);
    for file in &manifest.files {
        table.add_row([file.path.clone(), file.size.to_string(), file.sha256.to_string()]);
    }
    ui::print(&format!("\n{}", ui::render(&table)))
}

fn decoding(manifest: &Manifest) -> String {
    let decode = &manifest.decode;
    let of = match &decode.outputs()[..] {
        [] => "all outputs".to_owned(),
        some => some.join(", "),
    };
    let limits = decode.limits().map(|(threshold, _, most)| format!(", best {most} at or above {threshold}"));
    let detail = match decode {
        Decode::Classification { activation, .. } => format!(" ({})", word(activation)),
        Decode::BoxesScores { format, units, .. } => format!(" ({}, {})", word(format), word(units)),
        Decode::Yolo { version, .. } => format!(" ({})", word(version)),
        Decode::Detr { activation, .. } => format!(" ({})", word(activation)),
        Decode::Values { values, .. } => {
            format!(" ({})", values.iter().map(|value| value.name.as_str()).collect::<Vec<_>>().join(", "))
        }
        Decode::Anomaly { metric, threshold, .. } => format!(" ({} above {threshold})", word(metric)),
        Decode::Raw { .. } => String::new(),
    };
    format!("{}{detail} of {of}{}", decode.kind(), limits.unwrap_or_default())
}

fn shortened(labels: &[String]) -> String {
    match labels {
        [] => "none; classes are shown by their numbers".into(),
        few if few.len() <= 8 => few.join(", "),
        many => format!("{}, … ({} in all)", many[..8].join(", "), many.len()),
    }
}
