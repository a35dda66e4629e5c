//! `edgewarden repo`: makes and publishes to a repository of signed bundles.

mod operators;
mod serve;

use super::encrypt::{self, EncryptArgs, Ready};
use super::exit::{Own, Usage};
use super::ui::{self, print_json, say};
use crate::bundle;
use crate::domain::Release;
use crate::trust::export::{self, Overview};
use crate::trust::publish::Resigned;
use crate::trust::{Expiry, InitOptions, Publisher};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Begin a repository: a folder for any web server, and a folder with its keys
    Init(InitArgs),
    /// Add bundle folders to a repository and sign its new state
    Publish(PublishArgs),
    /// Write a release with all that proves it into one file, for a USB stick
    Export(ExportArgs),
    /// List the releases of a repository, and when its signatures expire
    List(ListArgs),
    /// Sign again what expires; run it from a timer where nothing is published for months
    Refresh(RefreshArgs),
    /// Say who may sign commands for the devices
    #[command(subcommand)]
    Operators(operators::Command),
    /// Serve a repository over HTTP, for a bench or a demo
    Serve(serve::Args),
}

/// The repository and its keys.
#[derive(Debug, clap::Args)]
pub struct Place {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// The folder with its keys; never put it on the web server [default: DIR-keys]
    #[arg(long, value_name = "KEYS")]
    keys: Option<PathBuf>,
}

impl Place {
    /// The key folder: beside the repository unless named.
    fn keys(&self) -> anyhow::Result<PathBuf> {
        if let Some(keys) = &self.keys {
            return Ok(keys.clone());
        }
        let unnamed = || {
            Usage(format!(
                "{}: has no name of its own; name the key folder with --keys",
                self.repository.display()
            ))
        };
        let mut name = self.repository.file_name().ok_or_else(unnamed)?.to_owned();
        name.push("-keys");
        Ok(self.repository.with_file_name(name))
    }
}

/// Arguments of `init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    #[command(flatten)]
    place: Place,
    /// Days until a device no longer believes that it sees the newest state: publish or refresh sooner
    #[arg(long, value_name = "DAYS", default_value_t = Expiry::default().timestamp, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_days: u32,
    /// Days until the keys must be confirmed; done by itself when half of them are over
    #[arg(long, value_name = "DAYS", default_value_t = Expiry::default().root, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    root_expires_days: u32,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Arguments of `publish`.
#[derive(Debug, clap::Args)]
pub struct PublishArgs {
    #[command(flatten)]
    place: Place,
    /// Bundle folders
    #[arg(required = true, value_name = "BUNDLE_DIR")]
    bundles: Vec<PathBuf>,
    #[command(flatten)]
    encrypt: EncryptArgs,
    /// Print one JSON object per bundle
    #[arg(long)]
    json: bool,
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
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Arguments of `list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// The root.json that devices pin; without it the repository vouches for itself
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Arguments of `refresh`.
#[derive(Debug, clap::Args)]
pub struct RefreshArgs {
    #[command(flatten)]
    place: Place,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => init(args),
        Command::Publish(args) => publish(args),
        Command::Export(args) => export(args),
        Command::List(args) => list(args),
        Command::Refresh(args) => refresh(args),
        Command::Operators(command) => operators::run(command),
        Command::Serve(args) => serve::run(args),
    }
}

fn init(args: InitArgs) -> anyhow::Result<()> {
    let keys = args.place.keys()?;
    let days = args.expires_days;
    let expiry =
        Expiry { root: args.root_expires_days, snapshot: days, timestamp: days, ..Expiry::default() };
    let publisher = Publisher::init(&args.place.repository, &keys, InitOptions { expiry }, Timestamp::now())?;
    let root = publisher.pinned_root();
    if args.json {
        return print_json(&json!({ "repository": args.place.repository, "keys": keys, "root": root }));
    }
    let dir = args.place.repository.display();
    say!("Repository  {dir}");
    say!("Keys        {}  (back this folder up and keep it off the web server)", keys.display());
    say!("Root        {}  (copy it to each device as /etc/edgewarden/root.json)", root.display());
    say!("\nNext: edgewarden repo publish {dir} BUNDLE_DIR");
    Ok(())
}

fn publish(args: PublishArgs) -> anyhow::Result<()> {
    let recipients = args.encrypt.recipients()?;
    let mut publisher = Publisher::open(&args.place.repository, &args.place.keys()?)?;
    for dir in &args.bundles {
        let bar = Bar::new(folder_size(dir));
        // Before the keys are touched: a mistake in the user's own folder is no refusal for trust.
        let opened = bundle::open(dir, None).map_err(Own)?;
        let tell = |bytes| bar.at(bytes);
        let published = match encrypt::ready(&opened, &args.place.repository, &recipients, &tell)? {
            Ready::AsItIs => publisher.publish(dir, Timestamp::now(), &tell)?,
            Ready::Encrypted(copy) => publisher.publish(copy.path(), Timestamp::now(), &tell)?,
            Ready::Published(published) => published,
        };
        drop(bar);
        if args.json {
            print_json(&published)?;
        } else if published.fresh {
            say!(
                "Published {}  {}  {} new of {}",
                published.release,
                published.digest.short(),
                bytes(published.new_bytes),
                bytes(published.total_bytes)
            );
        } else {
            say!("Unchanged {}  {}  (published before)", published.release, published.digest.short());
        }
    }
    if !args.json {
        let dir = args.place.repository.display();
        say!("\nPut {dir} on any web server, or try: edgewarden repo serve {dir}");
    }
    Ok(())
}

fn export(args: ExportArgs) -> anyhow::Result<()> {
    let release = &args.release;
    let out =
        args.output.unwrap_or_else(|| PathBuf::from(format!("{}-{}.bundle", release.name, release.version)));
    let overview = export::overview(&args.repository, None)?;
    let size = overview.releases.iter().find(|offer| offer.release == *release).map_or(0, |offer| offer.size);
    let bar = Bar::new(size);
    let verified = export::export(&args.repository, release, &out, Timestamp::now(), &|bytes| bar.at(bytes))?;
    drop(bar);
    let expires = overview.expires.values().min();
    if args.json {
        let digest = verified.get().digest;
        return print_json(&json!({ "release": release, "digest": digest, "file": out, "expires": expires }));
    }
    let until = expires.map(|time| format!(", good until {}", day(*time))).unwrap_or_default();
    say!("Wrote {}  {}{until}", out.display(), bytes(std::fs::metadata(&out)?.len()));
    say!("\nOn the device: edgewarden install {}", out.display());
    Ok(())
}

fn list(args: ListArgs) -> anyhow::Result<()> {
    let root = args.root.as_deref().map(super::bundle::verify::read_root).transpose()?;
    let overview = export::overview(&args.repository, root.as_deref())?;
    if args.json {
        return print_json(&overview);
    }
    let mut table = ui::table(&["RELEASE", "DIGEST", "SIZE", "DESCRIPTION"]);
    for offer in &overview.releases {
        let short: String = offer.description.chars().filter(|c| !c.is_control()).take(60).collect();
        table.add_row([offer.release.to_string(), offer.digest.short(), bytes(offer.size), short]);
    }
    if overview.releases.is_empty() {
        say!("No releases; add one with: edgewarden repo publish {} BUNDLE_DIR", args.repository.display());
    } else {
        ui::print(&ui::render(&table))?;
    }
    warn_of_expiry(&overview, &args.repository, Timestamp::now());
    Ok(())
}

/// Tells on standard error what has expired or soon will.
fn warn_of_expiry(overview: &Overview, repository: &Path, now: Timestamp) {
    for (role, expires) in &overview.expires {
        let days = (expires.as_second() - now.as_second()).div_euclid(86_400);
        if days < 14 {
            let when = if days < 0 { "expired on" } else { "expires on" };
            anstream::eprintln!(
                "warning: {role} {when} {}; run: edgewarden repo refresh {}",
                day(*expires),
                repository.display()
            );
        }
    }
}

fn refresh(args: RefreshArgs) -> anyhow::Result<()> {
    let mut publisher = Publisher::open(&args.place.repository, &args.place.keys()?)?;
    let resigned: Vec<Resigned> = publisher.refresh(Timestamp::now())?;
    if args.json {
        return print_json(&json!({ "resigned": resigned }));
    }
    for role in resigned {
        say!("Signed {} {}, good until {}", role.role, role.version, day(role.expires));
    }
    Ok(())
}

/// A day in UTC.
fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Bytes for people.
fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// Bytes of a bundle as its manifest states them; for the bar alone, so a fault counts as nothing.
fn folder_size(dir: &Path) -> u64 {
    bundle::read(dir).map_or(0, |(manifest, _)| manifest.total_size())
}

/// A progress bar on standard error, for copies that take long enough to wonder.
struct Bar(ProgressBar);

impl Bar {
    /// Below this nobody waits.
    const LEAST: u64 = 16 << 20;

    fn new(total: u64) -> Self {
        let target =
            if total < Self::LEAST { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(
            "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
        );
        let bar = ProgressBar::with_draw_target(Some(total), target);
        Self(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
