//! `edgewarden repo operators`: who may sign commands for the devices of a repository.

use super::Place;
use crate::cli::ui::{self, print_json, say};
use crate::domain::{OperatorName, Reason, ReasonCode};
use crate::sys::durable::failed;
use crate::trust::Publisher;
use crate::trust::keys::Key;
use crate::trust::operators::{self, Entry, Operators};
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
To revoke a key, publish the list without it. Devices hear of it at their next look at the repository
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
    #[command(flatten)]
    place: Place,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `drop`.
#[derive(Debug, clap::Args)]
pub struct DropArgs {
    #[command(flatten)]
    place: Place,
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
    let mut publisher = Publisher::open(&args.place.repository, &args.place.keys()?)?;
    let (operators, fresh) = publisher.set_operators(&list, Timestamp::now())?;
    if args.json.json {
        return print_json(&json!({ "fresh": fresh, "operators": shown(&operators) }));
    }
    let word = if fresh { "Published" } else { "Unchanged" };
    say!("{word} {}", ui::count(operators.iter().count(), "operator"));
    table(&operators)
}

fn show(args: ShowArgs) -> anyhow::Result<()> {
    let publisher = Publisher::open(&args.place.repository, &args.place.keys()?)?;
    let Some(list) = publisher.operators()? else {
        if args.json.json {
            return print_json(&json!({ "operators": null }));
        }
        say!(
            "No list: the key that signs the releases commands alone. Begin one with: edgewarden repo operators set"
        );
        return Ok(());
    };
    let operators = operators::parse(&list)?;
    if args.json.json {
        return print_json(&json!({ "operators": shown(&operators) }));
    }
    table(&operators)
}

fn drop_list(args: DropArgs) -> anyhow::Result<()> {
    let mut publisher = Publisher::open(&args.place.repository, &args.place.keys()?)?;
    if publisher.drop_operators(Timestamp::now())? {
        say!("Dropped; the key that signs the releases commands alone");
    } else {
        say!("There was no list");
    }
    Ok(())
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
        let expires = expires.map_or_else(|| "never".to_owned(), super::day);
        table.add_row([operator.name.to_string(), key.short(), roles.join(" "), groups, expires]);
    }
    ui::print(&ui::render(&table))
}
