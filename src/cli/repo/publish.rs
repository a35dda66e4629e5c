//! `edgewarden repo publish` and `delist`: what is on the list of releases.

use super::super::encrypt::{self, EncryptArgs, Ready};
use super::super::exit::Own;
use super::super::ui::{self, print_json, say};
use super::deltas::{self, Last};
use super::place::Place;
use super::tell::{self, Bar, bytes};
use crate::bundle;
use crate::domain::Release;
use crate::trust::deltas::Made;
use crate::trust::publish::{Outcome, Published};
use anyhow::Context;
use jiff::Timestamp;
use serde::Serialize;
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
    encrypt: EncryptArgs,
    #[command(flatten)]
    last: Last,
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

/// What is said of one release.
#[derive(Serialize)]
struct Told<'a> {
    #[serde(flatten)]
    published: &'a Published,
    #[serde(skip_serializing_if = "Option::is_none")]
    deltas: Option<&'a Made>,
}

/// Runs `publish`.
pub fn run(args: Args) -> anyhow::Result<()> {
    let recipients = args.encrypt.recipients()?;
    let mut publisher = args.place.open()?;
    let mut opened = Vec::new();
    for dir in &args.bundles {
        // Before the keys are touched: a mistake in the user's own folder is no refusal for trust.
        opened.push(bundle::open(dir, None).map_err(Own)?);
    }
    // What is encrypted is read twice.
    let reads = if recipients.is_empty() { 1 } else { 2 };
    let bar = Bar::new(opened.iter().map(|bundle| bundle.manifest.total_size() * reads).sum());
    let ready = opened
        .iter()
        .map(|one| encrypt::ready(one, &args.place.repository, &recipients, &|bytes| bar.at(bytes)));
    let ready = ready.collect::<Result<Vec<Ready>, _>>()?;
    let (mut dirs, mut published): (Vec<&Path>, Vec<Published>) = Default::default();
    for (dir, ready) in args.bundles.iter().zip(&ready) {
        match ready {
            Ready::AsItIs => dirs.push(dir),
            Ready::Encrypted(copy) => dirs.push(copy.path()),
            Ready::Published(before) => published.push(before.clone()),
        }
    }
    let role = args.delegation.as_deref();
    let (fresh, outcome) = match dirs.is_empty() {
        true => (Vec::new(), Outcome::Unchanged),
        false => publisher.publish_all(&dirs, role, Timestamp::now(), &|bytes| bar.at(bytes))?,
    };
    published.extend(fresh);
    drop(bar);
    // The repository is the next step's.
    drop(publisher);
    let live: Vec<Release> = published.iter().filter(|one| one.live).map(|one| one.release.clone()).collect();
    let made = match live.is_empty() || args.last.deltas == 0 {
        true => Vec::new(),
        false => deltas::make(&args.place.repository, &live, args.last)
            .context("the releases are published, but without deltas")?,
    };
    for one in published {
        if args.json.json {
            let deltas = made.iter().find(|made| made.release == one.release);
            print_json(&Told { published: &one, deltas })?;
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
    if !args.json.json {
        deltas::table(&made)?;
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
