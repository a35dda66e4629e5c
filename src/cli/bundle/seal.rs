//! `edgewarden bundle seal`: lists the files of a bundle anew.

use crate::bundle;
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
    bundle::seal(&args.dir)?;
    let bundle = bundle::open(&args.dir, None)?;
    let release = bundle.manifest.release();
    if args.json {
        println!("{}", serde_json::json!({"release": release, "digest": bundle.digest}));
    } else {
        println!("{release} holds {} files, digest {}", bundle.manifest.files.len(), bundle.digest);
    }
    Ok(())
}
