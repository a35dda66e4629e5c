//! `edgewarden repo list`: releases, sizes, expiry, and who has signed.

use super::super::ui::{self, print_json, say};
use super::refresh::warn_of_expiry;
use super::tell::{bytes, day};
use crate::trust::export;
use crate::trust::public_key::short;
use jiff::Timestamp;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// The root.json that devices pin; without it the repository vouches for itself
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let root = args.root.as_deref().map(super::super::bundle::verify::read_root).transpose()?;
    let overview = export::overview(&args.repository, root.as_deref())?;
    if args.json.json {
        return print_json(&overview);
    }
    let mut table = ui::table(&["RELEASE", "DIGEST", "SIZE", "LIST", "DESCRIPTION"]);
    for offer in &overview.releases {
        let short: String = offer.description.chars().filter(|c| !c.is_control()).take(60).collect();
        let (release, role) = (offer.release.to_string(), offer.role.clone());
        table.add_row([release, offer.digest.short(), bytes(offer.size), role, short]);
    }
    if overview.releases.is_empty() {
        say!("No releases; add one with: edgewarden repo publish {} BUNDLE_DIR", args.repository.display());
    } else {
        ui::print(&ui::render(&table))?;
    }
    let mut table = ui::table(&["ROLE", "VERSION", "EXPIRES", "NEEDS", "SIGNED BY", "MAY SIGN"]);
    for role in &overview.roles {
        let ids = |ids: &[String]| ids.iter().map(|id| short(id)).collect::<Vec<_>>().join(" ");
        let others: Vec<String> =
            role.keys.iter().filter(|id| !role.signed_by.contains(id)).cloned().collect();
        table.add_row([
            role.role.clone(),
            role.version.to_string(),
            role.expires.map(day).unwrap_or_default(),
            format!("{} of {}", role.threshold, role.keys.len()),
            ids(&role.signed_by),
            ids(&others),
        ]);
    }
    ui::print(&format!("\n{}", ui::render(&table)))?;
    warn_of_expiry(&overview, &args.repository, Timestamp::now());
    Ok(())
}
