//! `edgewarden repo`: makes and publishes to a repository of signed bundles.

mod check;
mod delegate;
mod deltas;
mod init;
mod keys;
mod list;
mod operators;
mod place;
mod publish;
mod refresh;
mod serve;
mod sign;
mod tell;

use crate::domain::Release;
use crate::trust::export;
use jiff::Timestamp;
use serde_json::json;
use std::path::PathBuf;

use super::ui::{self, print_json, say};
use tell::{Bar, bytes, day};

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Begin a repository: a folder for any web server, and a folder with its keys
    Init(init::Args),
    /// Make, show, add and revoke the keys that sign
    #[command(subcommand)]
    Key(keys::Command),
    /// Change the root: who may sign what, and how many of them are needed
    #[command(subcommand)]
    Root(keys::RootCommand),
    /// Add bundle folders to a repository and sign its new state
    Publish(publish::Args),
    /// Make deltas, so that updates move fewer bytes; needs no keys
    Deltas(deltas::Args),
    /// Take releases off the list: no device takes them any more
    Delist(publish::DelistArgs),
    /// Let others publish models of certain names, with keys of their own
    Delegate(delegate::Args),
    /// Add signatures to a change that waits for them, here or from another place
    Sign(sign::Args),
    /// Show the change that waits for signatures, or give it up
    Pending(sign::PendingArgs),
    /// Sign again what expires; run it from a timer where nothing is published for months
    Refresh(refresh::Args),
    /// List the releases of a repository, who signed them, and when its signatures expire
    List(list::Args),
    /// Check all that a device would check, every byte, and what expires soon
    Check(check::Args),
    /// Write a release with all that proves it into one file, for a USB stick
    Export(ExportArgs),
    /// Say who may sign commands for the devices
    #[command(subcommand)]
    Operators(operators::Command),
    /// Serve a repository over HTTP, for a bench or a demo
    Serve(serve::Args),
}

/// Arguments of `export`.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// NAME@VERSION
    release: Release,
    /// The file to write [default: NAME-VERSION.bundle]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Key(command) => keys::run(command),
        Command::Root(command) => keys::root(command),
        Command::Publish(args) => publish::run(args),
        Command::Deltas(args) => deltas::run(args),
        Command::Delist(args) => publish::delist(args),
        Command::Delegate(args) => delegate::run(args),
        Command::Sign(args) => sign::run(args),
        Command::Pending(args) => sign::pending(args),
        Command::Refresh(args) => refresh::run(args),
        Command::List(args) => list::run(args),
        Command::Check(args) => check::run(args),
        Command::Export(args) => export(args),
        Command::Operators(command) => operators::run(command),
        Command::Serve(args) => serve::run(args),
    }
}

fn export(args: ExportArgs) -> anyhow::Result<()> {
    let release = &args.release;
    let out =
        args.output.unwrap_or_else(|| PathBuf::from(format!("{}-{}.bundle", release.name, release.version)));
    let overview = export::overview(&args.repository, None)?;
    let offer = overview.releases.iter().find(|offer| offer.release == *release);
    let bar = Bar::new(offer.map_or(0, |offer| offer.size));
    let verified = export::export(&args.repository, release, &out, Timestamp::now(), &|bytes| bar.at(bytes))?;
    drop(bar);
    // Other delegations do not count for it.
    let list = offer.map_or("targets", |offer| offer.role.as_str());
    let counts = |role: &str| matches!(role, "root" | "targets" | "snapshot" | "timestamp") || role == list;
    let expires = overview.expires.iter().filter(|(role, _)| counts(role)).map(|(_, time)| time).min();
    if args.json.json {
        let digest = verified.get().digest;
        return print_json(&json!({ "release": release, "digest": digest, "file": out, "expires": expires }));
    }
    let until = expires.map(|time| format!(", good until {}", day(*time))).unwrap_or_default();
    say!("Wrote {}  {}{until}", out.display(), bytes(std::fs::metadata(&out)?.len()));
    say!("\nOn the device: edgewarden install {}", out.display());
    Ok(())
}
