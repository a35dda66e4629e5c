//! `edgewarden bundle verify`: would a device that pins this root take this bundle?

use crate::cli::exit::Usage;
use crate::cli::ui::{print_json, say};
use crate::domain::{Reason, ReasonCode, Release};
use crate::trust::{SignedManifest, Verified, export, sideload};
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A .bundle file, or a repository's folder together with --release
    path: PathBuf,
    /// The root.json that devices pin
    #[arg(long, value_name = "FILE")]
    root: PathBuf,
    /// Which release of the repository's folder
    #[arg(long, value_name = "NAME@VERSION")]
    release: Option<Release>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let verified = verify(&args)?;
    let signed = verified.get();
    if args.json {
        let files = signed.manifest.files.len();
        let bytes = signed.manifest.total_size();
        return print_json(
            &json!({ "release": signed.release(), "digest": signed.digest, "files": files, "bytes": bytes, "verified": true }),
        );
    }
    say!(
        "Good: {}  {}  {} files, signed by keys of {}",
        signed.release(),
        signed.digest,
        signed.manifest.files.len(),
        args.root.display()
    );
    Ok(())
}

fn verify(args: &Args) -> anyhow::Result<Verified<SignedManifest>> {
    let root = read_root(&args.root)?;
    let now = Timestamp::now();
    let path = args.path.display();
    match (&args.release, args.path.is_dir()) {
        (Some(release), true) => Ok(export::verify_release(&args.path, release, Some(&root), now)?),
        (None, false) => {
            let runtime = tokio::runtime::Builder::new_current_thread().build()?;
            Ok(runtime.block_on(sideload::verify_file(&args.path, root, None, now))?)
        }
        (None, true) if args.path.join(crate::bundle::MANIFEST).is_file() => {
            let detail = format!(
                "{path}: a bundle folder carries no signature; publish it, or check its form with `edgewarden bundle check`"
            );
            Err(Usage(detail).into())
        }
        (None, true) => {
            Err(Usage(format!("{path}: a folder; name a release in it with --release NAME@VERSION")).into())
        }
        (Some(_), false) => {
            Err(Usage(format!("{path}: no folder; --release is for a repository's folder")).into())
        }
    }
}

/// The content of a `root.json`.
pub(crate) fn read_root(path: &Path) -> Result<Vec<u8>, Reason> {
    std::fs::read(path).map_err(|error| {
        let detail = format!(
            "read the pinned root {}: {error}; it is metadata/1.root.json of the repository",
            path.display()
        );
        Reason::new(ReasonCode::BadRequest, detail)
    })
}
