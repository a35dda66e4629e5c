//! `edgewarden repo key` and `edgewarden repo root`: the keys, and what they may sign.

use super::super::exit::Usage;
use super::super::ui::{self, print_json, say};
use super::place::{ForRoles, Place, Roles};
use super::tell;
use crate::sys::durable;
use crate::trust::keys::Key;
use crate::trust::public_key::{PublicKey, short};
use crate::trust::publish::keyring::Edit;
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Subcommands of `key`.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Make a key: a private file of mode 600 and a public one beside it
    New(NewArgs),
    /// Print a key's id and its public part
    Show(ShowArgs),
    /// Let a key sign for some roles as well
    Add(AddArgs),
    /// Let a key sign for some roles no longer; what it alone had signed is signed anew
    Revoke(RevokeArgs),
}

/// Subcommands of `root`.
#[derive(Debug, clap::Subcommand)]
pub enum RootCommand {
    /// Publish the next root: keys added, taken away, thresholds; without any, only a new expiry
    Rotate(RotateArgs),
}

/// Arguments of `key new`.
#[derive(Debug, clap::Args)]
pub struct NewArgs {
    /// The private key's file; the public one has the same name and ends in .pub
    #[arg(value_name = "KEY.pem")]
    file: PathBuf,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `key show`.
#[derive(Debug, clap::Args)]
pub struct ShowArgs {
    /// A private or a public key
    #[arg(value_name = "KEY")]
    file: PathBuf,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `key add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    #[command(flatten)]
    place: Place,
    /// root, targets, snapshot, timestamp or a delegation; several divided by commas
    #[arg(value_name = "ROLES")]
    roles: Roles,
    /// The public key
    #[arg(value_name = "KEY.pub")]
    key: PathBuf,
    /// How many of their keys these roles need from now on
    #[arg(long, value_name = "N")]
    threshold: Option<u64>,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `key revoke`.
#[derive(Debug, clap::Args)]
pub struct RevokeArgs {
    #[command(flatten)]
    place: Place,
    /// root, targets, snapshot, timestamp or a delegation; several divided by commas
    #[arg(value_name = "ROLES")]
    roles: Roles,
    /// The key's id or its beginning, as `repo list` shows it, or its public file
    #[arg(value_name = "KEYID")]
    key: String,
    /// How many of their keys these roles need from now on
    #[arg(long, value_name = "N")]
    threshold: Option<u64>,
    #[command(flatten)]
    json: ui::Json,
}

const ROTATE: &str = "\
Enough keys of the present root and enough of the next one sign it; devices follow from any root that they
have ever pinned. All that is asked for becomes one change.

Example: a token instead of a key on disk, for the roles that are renewed often:
  edgewarden repo root rotate fleet --add snapshot,timestamp=token.pub \\
    --revoke snapshot,timestamp=3f9c2ab77e10 --signer-key token.pub --signer 'sign-with-token'";

/// Arguments of `root rotate`.
#[derive(Debug, clap::Args)]
#[command(after_help = ROTATE)]
pub struct RotateArgs {
    #[command(flatten)]
    place: Place,
    /// A public key that may sign for these roles as well; may be given several times
    #[arg(long, value_name = "ROLES=KEY.pub")]
    add: Vec<ForRoles>,
    /// A key that may sign for these roles no longer, by its id or public file; may be given several times
    #[arg(long, value_name = "ROLES=KEYID")]
    revoke: Vec<ForRoles>,
    /// How many of their keys these roles need from now on; may be given several times
    #[arg(long, value_name = "ROLES=N")]
    threshold: Vec<ForRoles>,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs `key`.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::New(args) => new(args),
        Command::Show(args) => show(args),
        Command::Add(args) => {
            let key = PublicKey::load(&args.key)?;
            let added = args.roles.0.iter().map(|role| Edit::Add { role: role.clone(), key: key.clone() });
            let edits = added.chain(thresholds(&args.roles.0, args.threshold)).collect();
            rotate(&args.place, edits, args.json.json)
        }
        Command::Revoke(args) => {
            let id = id_of(&args.key)?;
            let gone = args.roles.0.iter().map(|role| Edit::Revoke { role: role.clone(), id: id.clone() });
            let edits = gone.chain(thresholds(&args.roles.0, args.threshold)).collect();
            rotate(&args.place, edits, args.json.json)
        }
    }
}

/// Runs `root`.
pub fn root(command: RootCommand) -> anyhow::Result<()> {
    let RootCommand::Rotate(args) = command;
    let mut edits = Vec::new();
    for given in &args.add {
        let key = PublicKey::load(Path::new(&given.value))?;
        edits.extend(given.roles.iter().map(|role| Edit::Add { role: role.clone(), key: key.clone() }));
    }
    for given in &args.revoke {
        let id = id_of(&given.value)?;
        edits.extend(given.roles.iter().map(|role| Edit::Revoke { role: role.clone(), id: id.clone() }));
    }
    for given in &args.threshold {
        edits.extend(thresholds(&given.roles, Some(given.number()?)));
    }
    rotate(&args.place, edits, args.json.json)
}

fn thresholds(roles: &[String], threshold: Option<u64>) -> impl Iterator<Item = Edit> {
    let set = threshold.into_iter().flat_map(move |threshold| {
        roles.iter().map(move |role| Edit::Threshold { role: role.clone(), threshold })
    });
    set.collect::<Vec<_>>().into_iter()
}

/// A key's id from what people have of it.
fn id_of(text: &str) -> anyhow::Result<String> {
    if Path::new(text).is_file() {
        return Ok(PublicKey::load(Path::new(text))?.id().to_owned());
    }
    let id = text.trim_end_matches('…').to_ascii_lowercase();
    if id.len() < 8 || id.len() > 64 || !id.chars().all(|c| c.is_ascii_hexdigit()) {
        let detail = format!(
            "key \"{text}\": expected 8 to 64 hexadecimal digits of its id, or its public file; `edgewarden repo list` shows the ids"
        );
        return Err(Usage(detail).into());
    }
    Ok(id)
}

fn rotate(place: &Place, edits: Vec<Edit>, json: bool) -> anyhow::Result<()> {
    let outcome = place.open()?.rotate(&edits, Timestamp::now())?;
    if json {
        return print_json(&outcome);
    }
    tell::outcome(&outcome, &place.repository)
}

fn new(args: NewArgs) -> anyhow::Result<()> {
    let public = args.file.with_extension("pub");
    if public == args.file || public.exists() {
        let detail = format!(
            "{}: exists already, or is also the private key's name; name another, such as {}",
            public.display(),
            args.file.with_extension("pem").display()
        );
        return Err(Usage(detail).into());
    }
    let key = Key::generate()?;
    key.save(&args.file)?;
    durable::write_atomic(&public, key.public_key().pem().as_bytes())?;
    if args.json.json {
        return print_json(&json!({ "id": key.id(), "private": args.file, "public": public }));
    }
    say!("Private  {}  (back it up; nobody else may have it)", args.file.display());
    say!("Public   {}  (for the repository's owner)", public.display());
    say!("Id       {}", key.id());
    Ok(())
}

fn show(args: ShowArgs) -> anyhow::Result<()> {
    let is_private = std::fs::read_to_string(&args.file).is_ok_and(|text| text.contains("PRIVATE KEY"));
    let key = if is_private { Key::load(&args.file)?.public_key() } else { PublicKey::load(&args.file)? };
    if args.json.json {
        return print_json(&json!({ "id": key.id(), "short": short(key.id()), "public": key.pem() }));
    }
    say!("Id  {}", key.id());
    super::super::ui::print(&key.pem())
}
