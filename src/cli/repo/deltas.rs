//! `edgewarden repo deltas`: what devices fetch in place of whole files; and what updates then cost.

use super::super::ui::{self, print_json, say};
use super::tell::{Bar, bytes};
use crate::domain::Release;
use crate::trust::deltas::{self, BEFORE, Cost, MOST_BEFORE, Made};
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Needs no keys: deltas are not signed, and a device holds what they lead to against the signed digest. They may be made
and made anew at any time, also where the repository is served.

Examples:
  edgewarden repo deltas fleet
  edgewarden repo deltas fleet detector@1.4.0 --deltas 10";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// NAME@VERSION [default: the newest of each name]
    #[arg(value_name = "RELEASE")]
    releases: Vec<Release>,
    #[command(flatten)]
    last: Last,
    #[command(flatten)]
    json: ui::Json,
}

/// How many deltas are made.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Last {
    /// Make deltas from so many releases before; 0 makes none
    #[arg(long, value_name = "N", default_value_t = BEFORE, value_parser = number)]
    pub deltas: usize,
}

fn number(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|n| *n <= MOST_BEFORE).ok_or(format!("expected 0 to {MOST_BEFORE}"))
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let newest = args.releases.is_empty().then(|| deltas::newest(&args.repository)).transpose()?;
    let made = make(&args.repository, &newest.unwrap_or(args.releases), args.last)?;
    if args.json.json {
        return print_json(&made);
    }
    for one in &made {
        match &one.none_because {
            Some(why) => say!("{}: no deltas: {why}", one.release),
            None => say!("{}: {} made", one.release, ui::count(one.new, "delta")),
        }
    }
    table(&made)
}

/// Makes them, with a bar where it takes long.
pub fn make(repository: &Path, releases: &[Release], last: Last) -> anyhow::Result<Vec<Made>> {
    let bar = Bar::new(deltas::effort(repository, releases, last.deltas)?);
    Ok(deltas::make(repository, releases, last.deltas, &|done| bar.at(done))?)
}

/// What updates cost, where a delta makes a difference.
pub fn table(made: &[Made]) -> anyhow::Result<()> {
    let mut table = ui::table(&["UPDATE TO", "FROM", "BYTES", "OF", "SHARE"]);
    let mut rows = 0;
    for one in made {
        let saves = |cost: &Cost| cost.bytes < cost.whole_bytes;
        if !one.updates.iter().any(saves) {
            continue;
        }
        for cost in &one.updates {
            let from = cost.from.as_ref().map_or("nothing".to_owned(), ToString::to_string);
            let share = 100.0 * cost.bytes as f64 / cost.whole_bytes.max(1) as f64;
            let share = if share < 1.0 { format!("{share:.2} %") } else { format!("{share:.0} %") };
            let row = [one.release.to_string(), from, bytes(cost.bytes), bytes(cost.whole_bytes), share];
            table.add_row(row);
            rows += 1;
        }
    }
    if rows == 0 { Ok(()) } else { ui::print(&ui::render(&table)) }
}
