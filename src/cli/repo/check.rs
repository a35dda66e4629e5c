//! `edgewarden repo check`: would devices take it, and for how long still?

use super::super::exit::Told;
use super::super::ui::{self, print_json, say};
use super::tell::{Bar, bytes, day};
use crate::trust::audit::{self, Severity};
use crate::trust::export::{self, RoleState};
use jiff::Timestamp;
use std::path::PathBuf;

const STATUS: &str = "\
Exit status: 0 all good (notes may be printed), 1 something is missing, damaged or expires soon, 2 a device
would refuse the repository.

Example, from a timer on the web server:
  edgewarden repo check /srv/fleet --root /etc/edgewarden/root.json --days 21";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = STATUS)]
pub struct Args {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// The root.json that devices pin; without it the repository vouches for itself
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Days within which nothing may expire
    #[arg(long, value_name = "DAYS", default_value_t = 14, value_parser = clap::value_parser!(u32).range(0..=36_500))]
    days: u32,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let root = args.root.as_deref().map(super::super::bundle::verify::read_root).transpose()?;
    // For the bar alone; what is wrong is found below.
    let total = export::overview(&args.repository, root.as_deref())
        .map_or(0, |overview| overview.releases.iter().map(|offer| offer.size).sum());
    let bar = Bar::new(total);
    let now = Timestamp::now();
    let audit = audit::audit(&args.repository, root.as_deref(), args.days, now, &|done| bar.at(done))?;
    drop(bar);
    if args.json.json {
        print_json(&audit)?;
    } else {
        expiry(&audit.roles, now)?;
        for finding in &audit.findings {
            let (style, word) = match finding.severity {
                Severity::Note => (ui::DIM, "note"),
                Severity::Bad => (ui::WARN, "bad"),
                Severity::Refused => (ui::BAD, "refused"),
            };
            say!("{}: {}", ui::styled(style, word), finding.detail);
        }
        let good = ui::count(audit.good.len(), "release");
        say!("{good} that a device takes, {} held against their digests", bytes(audit.bytes));
    }
    match audit.worst() {
        None | Some(Severity::Note) => Ok(()),
        Some(Severity::Bad) => Err(Told.into()),
        Some(Severity::Refused) => Err(super::super::exit::ToldRefused.into()),
    }
}

/// What expires when, the first one first.
fn expiry(roles: &[RoleState], now: Timestamp) -> anyhow::Result<()> {
    let mut roles: Vec<&RoleState> = roles.iter().collect();
    roles.sort_by_key(|role| role.expires);
    let mut table = ui::table(&["ROLE", "VERSION", "EXPIRES", "DAYS LEFT", "SIGNED", "NEEDS"]);
    for role in &roles {
        let left = role.expires.map(|time| (time.as_second() - now.as_second()).div_euclid(86_400));
        table.add_row([
            role.role.clone(),
            role.version.to_string(),
            role.expires.map(day).unwrap_or_default(),
            left.map(|days| days.to_string()).unwrap_or_default(),
            role.signed_by.len().to_string(),
            format!("{} of {}", role.threshold, role.keys.len()),
        ]);
    }
    if roles.is_empty() { Ok(()) } else { ui::print(&ui::render(&table)) }
}
