//! `edgewarden bundle seal`: lists the files of a bundle anew.

use crate::bundle;
use crate::cli::exit::Own;
use crate::cli::ui::{self, say};
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle's folder
    dir: PathBuf,
    /// Print the release and its digest as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    bundle::seal(&args.dir).map_err(Own)?;
    let bundle = bundle::open(&args.dir, None).map_err(Own)?;
    let release = bundle.manifest.release();
    if args.json {
        return ui::print_json(&serde_json::json!({"release": release, "digest": bundle.digest}));
    }
    say!("{release} holds {}, digest {}", ui::count(bundle.manifest.files.len(), "file"), bundle.digest);
    Ok(())
}
