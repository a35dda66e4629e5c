//! `edgewarden repo publish` and `delist`: what is on the list of releases.

use super::super::exit::Own;
use super::super::ui::{self, print_json, say};
use super::place::Place;
use super::tell::{self, Bar, bytes};
use crate::bundle;
use crate::domain::Release;
use crate::trust::publish::Outcome;
use jiff::Timestamp;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  edgewarden repo publish fleet bundles/detector bundles/counter
  edgewarden repo publish fleet detector --sign-with alice.pem
  edgewarden repo publish fleet detector --signer-key token.pub \\
    --signer 'openssl pkeyutl -sign -rawin -in /dev/stdin -inkey \"pkcs11:object=release\" -engine pkcs11'
  edgewarden repo publish fleet faces --delegation acme --sign-with acme.pem

Where the keys at hand do not suffice, the change waits, and devices see nothing of it; see
`edgewarden repo sign`.";

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Bundle folders
    #[arg(required = true, value_name = "BUNDLE_DIR")]
    bundles: Vec<PathBuf>,
    /// Put them on the list of this delegation instead of the main one
    #[arg(long, value_name = "NAME")]
    delegation: Option<String>,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `delist`.
#[derive(Debug, clap::Args)]
pub struct DelistArgs {
    #[command(flatten)]
    place: Place,
    /// NAME@VERSION
    #[arg(required = true, value_name = "RELEASE")]
    releases: Vec<Release>,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs `publish`.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut publisher = args.place.open()?;
    let mut total = 0;
    for dir in &args.bundles {
        // Before the keys are touched: a mistake in the user's own folder is no refusal for trust.
        total += bundle::open(dir, None).map_err(Own)?.manifest.total_size();
    }
    let bar = Bar::new(total);
    let dirs: Vec<&Path> = args.bundles.iter().map(PathBuf::as_path).collect();
    let role = args.delegation.as_deref();
    let (published, outcome) =
        publisher.publish_all(&dirs, role, Timestamp::now(), &|bytes| bar.at(bytes))?;
    drop(bar);
    for one in published {
        if args.json.json {
            print_json(&one)?;
            continue;
        }
        let (release, digest) = (&one.release, one.digest.short());
        if one.fresh {
            let word = if one.live { "Published" } else { "Staged" };
            say!("{word} {release}  {digest}  {} new of {}", bytes(one.new_bytes), bytes(one.total_bytes));
        } else {
            say!("Unchanged {release}  {digest}  (published before)");
        }
    }
    let waits = matches!(outcome, Outcome::Waiting { .. });
    match (args.json.json, waits) {
        (true, true) => print_json(&outcome),
        (true, false) => Ok(()),
        (false, true) => tell::outcome(&outcome, &args.place.repository),
        (false, false) => {
            let dir = args.place.repository.display();
            say!("\nPut {dir} on any web server, or try: edgewarden repo serve {dir}");
            Ok(())
        }
    }
}

/// Runs `delist`.
pub fn delist(args: DelistArgs) -> anyhow::Result<()> {
    let mut publisher = args.place.open()?;
    let outcome = publisher.delist(&args.releases, Timestamp::now())?;
    if args.json.json {
        return print_json(&outcome);
    }
    if let Outcome::Live { .. } = outcome {
        for release in &args.releases {
            say!("Took {release} off the list");
        }
    }
    tell::outcome(&outcome, &args.place.repository)
}
