//! `edgewarden bundle golden`: takes the present answers as the expected ones.

use super::told;
use crate::bundle;
use crate::cli::exit::Own;
use crate::cli::runtime::RuntimeArgs;
use crate::cli::ui::{self, say};
use crate::domain::manifest::GoldenSample;
use crate::inference::Engine;
use crate::inference::given::Given;
use anyhow::Context;
use std::path::PathBuf;

/// The folder of the pictures inside the bundle.
const FOLDER: &str = "golden";

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle's folder
    dir: PathBuf,
    /// Pictures (for a series model: CSV or .npy files) whose present answers are right; they replace the golden samples that are there
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Print the samples as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut bundle = bundle::open(&args.dir, None).map_err(Own)?;
    bundle.unlock(&args.runtime.model_key)?;
    let mut engine = Engine::load(&bundle, &args.runtime.settings()?)?;
    let mut samples = Vec::new();
    let mut copies = Vec::new();
    for (at, image) in args.images.iter().enumerate() {
        let given = Given::read(&bundle.manifest, image)?;
        let (expected, _) = engine.run(given.view()).with_context(|| format!("input {}", image.display()))?;
        let usual = if bundle.manifest.series.is_some() { "csv" } else { "jpg" };
        let ending =
            image.extension().and_then(|ending| ending.to_str()).unwrap_or(usual).to_ascii_lowercase();
        let input = format!("{FOLDER}/{:02}.{ending}", at + 1);
        bundle::path::check(&input)?;
        // Read now: the picture may be one of the files that are replaced.
        copies.push((input.clone(), std::fs::read(image)?));
        samples.push(GoldenSample { input, expected });
    }
    for old in &bundle.manifest.golden {
        if old.input.starts_with(&format!("{FOLDER}/")) {
            std::fs::remove_file(bundle.file(&old.input)).with_context(|| format!("remove {}", old.input))?;
        }
    }
    std::fs::create_dir_all(args.dir.join(FOLDER)).with_context(|| format!("make {FOLDER}/"))?;
    for (input, bytes) in copies {
        std::fs::write(bundle.file(&input), bytes).with_context(|| format!("write {input}"))?;
    }
    let mut manifest = bundle.manifest;
    manifest.golden = samples;
    bundle::write_manifest(&args.dir, &manifest)?;
    let manifest = bundle::seal(&args.dir).map_err(Own)?;
    if args.json {
        return ui::print_json(&manifest.golden);
    }
    for sample in &manifest.golden {
        say!("{}  {}", sample.input, told(&sample.expected));
    }
    Ok(())
}
