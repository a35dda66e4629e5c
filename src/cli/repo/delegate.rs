//! `edgewarden repo delegate`: others publish under names that are given to them.

use super::super::exit::Usage;
use super::super::ui::{self, print_json};
use super::place::Place;
use super::tell;
use crate::trust::public_key::PublicKey;
use crate::trust::publish::delegation::Delegation;
use jiff::Timestamp;
use std::path::PathBuf;

const EXAMPLES: &str = "\
Examples:
  A supplier may publish models whose names begin with face-, and no others:
    edgewarden repo delegate fleet acme --paths 'face-*' --key acme.pub
  The supplier signs the first, empty list, and later each release, with its own key:
    edgewarden repo sign --request pending.json --root root.json --sign-with acme.pem   (at the supplier's)
    edgewarden repo sign fleet --request pending.json
    edgewarden repo publish fleet face-finder --delegation acme
  No longer:
    edgewarden repo delegate fleet acme --remove

The main list comes first: what it has, no delegation can replace.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// The delegation's name: a-z, 0-9 and -
    name: String,
    /// Names of models, with * and ?; may be given several times
    #[arg(long, value_name = "PATTERN", required_unless_present = "remove")]
    paths: Vec<String>,
    /// A public key that may sign for it; may be given several times
    #[arg(long, value_name = "KEY.pub", required_unless_present = "remove")]
    key: Vec<PathBuf>,
    /// How many of its keys it needs
    #[arg(long, value_name = "N", default_value_t = 1)]
    threshold: u64,
    /// Let delegations after it be asked about the same names, too
    #[arg(long)]
    not_terminating: bool,
    /// Take the delegation away, and with it all its releases
    #[arg(long, conflicts_with_all = ["paths", "key", "threshold", "not_terminating"])]
    remove: bool,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut keys: Vec<PublicKey> = Vec::new();
    for path in &args.key {
        let key = PublicKey::load(path)?;
        if keys.contains(&key) {
            return Err(Usage(format!("{}: this key is given twice", path.display())).into());
        }
        keys.push(key);
    }
    let mut publisher = args.place.open()?;
    let now = Timestamp::now();
    let outcome = if args.remove {
        publisher.undelegate(&args.name, now)?
    } else {
        let delegation = Delegation {
            name: args.name,
            models: args.paths,
            keys,
            threshold: args.threshold,
            terminating: !args.not_terminating,
        };
        publisher.delegate(&delegation, now)?
    };
    if args.json.json {
        return print_json(&outcome);
    }
    tell::outcome(&outcome, &args.place.repository)
}
