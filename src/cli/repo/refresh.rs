//! `edgewarden repo refresh`: signs again what expires, by the keys that are online.

use super::super::ui::{self, print_json, say};
use super::place::Place;
use super::tell::{self, day};
use crate::trust::export::{self, Overview};
use jiff::Timestamp;
use serde_json::json;
use std::path::Path;

const EXAMPLES: &str = "\
Examples:
  From cron or a systemd timer, with only the key of snapshot and timestamp at hand:
    edgewarden repo refresh fleet --json
  Everything anew (the root only where half of its time is over); what other keys must sign waits for them:
    edgewarden repo refresh fleet --all

The lists and the root are signed again, too, when less than half of their time is left and the keys at hand
suffice; where they do not, a warning tells 14 days before something expires.";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// Sign all lists anew, and the root where half of its time is over, also those that need keys of other people
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let repository = &args.place.repository;
    let now = Timestamp::now();
    let mut publisher = args.place.open()?;
    if args.all {
        let outcome = publisher.renew_all(now)?;
        return if args.json.json { print_json(&outcome) } else { tell::outcome(&outcome, repository) };
    }
    let resigned = publisher.refresh(now)?;
    if args.json.json {
        print_json(&json!({ "resigned": resigned }))?;
    } else {
        for role in resigned {
            say!("Signed {} {}, good until {}", role.role, role.version, day(role.expires));
        }
    }
    match export::overview(repository, None) {
        Ok(overview) => warn_of_expiry(&overview, repository, now),
        // It has been signed and published all the same.
        Err(reason) => anstream::eprintln!(
            "warning: {reason}; devices may refuse this repository, see: edgewarden repo check {}",
            repository.display()
        ),
    }
    Ok(())
}

/// Tells on standard error what has expired or soon will.
pub fn warn_of_expiry(overview: &Overview, repository: &Path, now: Timestamp) {
    for (role, expires) in &overview.expires {
        let days = (expires.as_second() - now.as_second()).div_euclid(86_400);
        if days < 14 {
            let when = if days < 0 { "expired on" } else { "expires on" };
            let all = if matches!(role.as_str(), "snapshot" | "timestamp") { "" } else { " --all" };
            anstream::eprintln!(
                "warning: {role} {when} {}; run: edgewarden repo refresh {}{all}",
                day(*expires),
                repository.display()
            );
        }
    }
}
