//! `edgewarden repo operators`: who may sign commands for the devices of a repository.

use super::place::Place;
use super::tell;
use crate::cli::ui::{self, print_json, say};
use crate::domain::{OperatorName, Reason, ReasonCode};
use crate::sys::durable::failed;
use crate::trust::export;
use crate::trust::keys::Key;
use crate::trust::operators::{self, Entry, Operators};
use crate::trust::publish::Outcome;
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

/// What stands below the help of `set`.
const FORMAT: &str = "\
FILE is JSON; without \"groups\" every device may be commanded, without \"expires\" the key is good until it is
taken off the list:

  {\"format\": 1, \"operators\": [
    {\"name\": \"anna\", \"key\": \"64 hexadecimal digits\", \"roles\": [\"observe\", \"operate\", \"deploy\"],
     \"groups\": [\"line-3\"], \"expires\": \"2028-01-01T00:00:00Z\"}]}

Roles: observe (status, snapshot), operate (pause, resume, restart), deploy (update, rollback, abort).
To revoke a key, publish the list without it. Where several people sign releases, they sign this list, too: it waits
for them as a release does (edgewarden repo sign). Devices hear of it at their next look at the repository
(commands.refresh, an hour unless configured) or update, and from then on take signed commands only.";

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Publish a list of operators in place of the one before
    #[command(after_help = FORMAT)]
    Set(SetArgs),
    /// Show the list that the repository has now
    Show(ShowArgs),
    /// Take the list away: then the key that signs the releases commands alone
    Drop(DropArgs),
    /// Make an operator's key, or read the one that is there, and print its entry for the list
    Key(KeyArgs),
}

/// Arguments of `set`.
#[derive(Debug, clap::Args)]
pub struct SetArgs {
    #[command(flatten)]
    place: Place,
    /// The list
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// The root.json that devices pin; without it the repository vouches for itself
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `drop`.
#[derive(Debug, clap::Args)]
pub struct DropArgs {
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `key`.
#[derive(Debug, clap::Args)]
pub struct KeyArgs {
    /// The private key; it stays with the operator
    #[arg(value_name = "KEY_FILE")]
    file: PathBuf,
    /// The operator's name in the list
    #[arg(long, default_value = "operator")]
    name: OperatorName,
    /// What the key is good for
    #[arg(long, value_name = "ROLES", value_delimiter = ',', default_values = ["observe", "operate", "deploy"],
          value_parser = ["observe", "operate", "deploy"])]
    roles: Vec<String>,
}

/// Runs the command.
pub(super) fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Set(args) => set(args),
        Command::Show(args) => show(args),
        Command::Drop(args) => drop_list(args),
        Command::Key(args) => key(args),
    }
}

fn set(args: SetArgs) -> anyhow::Result<()> {
    let list = read(&args.file)?;
    // Before the keys are touched: a mistake in the user's own file is no refusal for trust.
    operators::parse(&list).map_err(crate::cli::exit::Own)?;
    let mut publisher = args.place.open()?;
    let (operators, outcome) = publisher.set_operators(&list, Timestamp::now())?;
    if args.json.json {
        return print_json(&json!({ "operators": shown(&operators), "outcome": outcome }));
    }
    let word = match outcome {
        Outcome::Unchanged => "Unchanged:",
        Outcome::Live { .. } => "Published",
        Outcome::Waiting { .. } => "Staged",
    };
    say!("{word} {}", ui::count(operators.iter().count(), "operator"));
    table(&operators)?;
    waiting(&outcome, &args.place)
}

fn show(args: ShowArgs) -> anyhow::Result<()> {
    let root = args.root.as_deref().map(super::super::bundle::verify::read_root).transpose()?;
    let operators = export::operators(&args.repository, root.as_deref())?;
    if args.json.json {
        let listed = operators.is_listed().then(|| shown(&operators));
        return print_json(&json!({ "operators": listed }));
    }
    if !operators.is_listed() {
        let who = match operators.iter().count() {
            0 => "nobody may sign commands: releases need several signatures",
            _ => "the key that signs the releases commands alone",
        };
        say!("No list: {who}. Begin one with: edgewarden repo operators set");
        return Ok(());
    }
    table(&operators)
}

fn drop_list(args: DropArgs) -> anyhow::Result<()> {
    let mut publisher = args.place.open()?;
    let outcome = publisher.drop_operators(Timestamp::now())?;
    if args.json.json {
        return print_json(&outcome);
    }
    match outcome {
        Outcome::Unchanged => say!("There was no list"),
        Outcome::Live { .. } => say!("Dropped; see who may command now: edgewarden repo operators show"),
        Outcome::Waiting { .. } => waiting(&outcome, &args.place)?,
    }
    Ok(())
}

/// What is still to be done, where others must sign.
fn waiting(outcome: &Outcome, place: &Place) -> anyhow::Result<()> {
    match outcome {
        Outcome::Waiting { .. } => tell::outcome(outcome, &place.repository),
        Outcome::Unchanged | Outcome::Live { .. } => Ok(()),
    }
}

fn key(args: KeyArgs) -> anyhow::Result<()> {
    let key = if args.file.exists() {
        Key::load(&args.file)?
    } else {
        let key = Key::generate()?;
        key.save(&args.file)?;
        anstream::eprintln!("made {}; only its owner can read it", args.file.display());
        key
    };
    let roles = args.roles.iter().map(|role| serde_json::from_value(role.as_str().into()));
    let roles: BTreeSet<_> = roles.collect::<Result<_, _>>()?;
    let entry = Entry { name: args.name, key: key.public_hex(), roles, groups: None, expires: None };
    print_json(&entry)
}

fn read(file: &Path) -> Result<Vec<u8>, Reason> {
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(failed("open", file))?;
    opened.take(operators::MAX_LIST + 1).read_to_end(&mut bytes).map_err(failed("read", file))?;
    if bytes.is_empty() {
        return Err(Reason::new(ReasonCode::BadRequest, format!("{}: is empty", file.display())));
    }
    Ok(bytes)
}

fn shown(operators: &Operators) -> Vec<Value> {
    let one = |(key, operator): (&crate::domain::Digest, &crate::domain::authority::Operator)| {
        json!({
            "name": operator.name,
            "key_id": key,
            "roles": operator.roles,
            "groups": operator.groups,
            "expires": operator.expires_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        })
    };
    operators.iter().map(one).collect()
}

fn table(operators: &Operators) -> anyhow::Result<()> {
    let mut table = ui::table(&["OPERATOR", "KEY ID", "ROLES", "GROUPS", "EXPIRES"]);
    for (key, operator) in operators.iter() {
        let roles: Vec<&str> = operator.roles.iter().map(|role| role.as_str()).collect();
        let groups = operator.groups.as_ref().map_or_else(
            || "every device".to_owned(),
            |groups| groups.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
        );
        let expires = operator.expires_ms.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let expires = expires.map_or_else(|| "never".to_owned(), tell::day);
        table.add_row([operator.name.to_string(), key.short(), roles.join(" "), groups, expires]);
    }
    ui::print(&ui::render(&table))
}
