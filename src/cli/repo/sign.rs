//! `edgewarden repo sign` and `pending`: a change that waits for signatures of several people.

use super::super::bundle::verify::read_root;
use super::super::exit::Usage;
use super::super::ui::{self, print_json, say};
use super::place::{Signers, key_folder};
use super::tell;
use crate::trust::Publisher;
use crate::trust::keys;
use crate::trust::public_key::short;
use crate::trust::publish::change::{Change, Made};
use crate::trust::publish::pending;
use crate::trust::signer::Signer;
use jiff::Timestamp;
use serde_json::json;
use std::path::{Path, PathBuf};

const EXAMPLES: &str = "\
Examples:
  See what a change does before signing it, and sign it, at any place:
    edgewarden repo sign --request pending.json --root root.json --show
    edgewarden repo sign --request pending.json --root root.json --sign-with alice.pem
  The request that begins a repository, before there is a root:
    edgewarden repo sign --request pending.json --sign-with alice.pem
  Bring the signatures home; it is published as soon as every role has enough:
    edgewarden repo sign fleet --request pending.json
  Sign at home what waits there:
    edgewarden repo sign fleet --sign-with bob.pem

root.json is the one that your devices pin (metadata/1.root.json of the repository): keep a copy of your own, and take
none that comes with a request. A request of a change that does not wait in the key folder of DIR is taken up and
shown; the next `repo sign DIR` signs it.";

/// Arguments of `sign`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// The repository's folder; without it the request alone is signed
    #[arg(value_name = "DIR")]
    repository: Option<PathBuf>,
    /// The pending.json of a key folder that was carried here; without DIR it gets the signatures
    #[arg(long, value_name = "FILE")]
    request: Option<PathBuf>,
    /// The folder with keys to sign with [default: DIR-keys]
    #[arg(long, value_name = "KEYS")]
    keys: Option<PathBuf>,
    /// The root.json that your devices pin: the request must follow from it; needed to sign without DIR
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Only tell what it does and what it lacks
    #[arg(long)]
    show: bool,
    #[command(flatten)]
    signers: Signers,
    #[command(flatten)]
    json: ui::Json,
}

/// Arguments of `pending`.
#[derive(Debug, clap::Args)]
pub struct PendingArgs {
    /// The repository's folder
    #[arg(value_name = "DIR")]
    repository: PathBuf,
    /// The folder with its keys [default: DIR-keys]
    #[arg(long, value_name = "KEYS")]
    keys: Option<PathBuf>,
    /// Give the change up
    #[arg(long)]
    discard: bool,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs `sign`.
pub fn run(args: Args) -> anyhow::Result<()> {
    let root = args.root.as_deref().map(read_root).transpose()?;
    let request = args.request.as_deref().map(Change::load).transpose()?;
    // At home the key folder knows the root.
    let pinned = match (&root, &args.repository) {
        (None, Some(repository)) => {
            std::fs::read(key_folder(repository, args.keys.as_deref())?.join("root.json")).ok()
        }
        (root, _) => root.clone(),
    };
    if let Some(request) = &request {
        request.check(pinned.as_deref())?;
    }
    match (&args.repository, &args.request) {
        (_, Some(path)) if args.show => {
            let Some(change) = request else { return Ok(()) };
            show(&change, Some(path), pinned.is_some(), args.json.json)
        }
        (Some(repository), _) => {
            let keys = key_folder(repository, args.keys.as_deref())?;
            at_home(repository, &keys, request, &args)
        }
        (None, Some(_))
            if root.is_none() && request.as_ref().is_some_and(|request| !request.is_founding()) =>
        {
            let detail = "sign: give the root.json that your devices pin with --root, from a copy of your own; without it nobody can tell what this request builds on";
            Err(Usage(detail.to_owned()).into())
        }
        (None, Some(path)) => elsewhere(path, root.as_deref(), &args),
        (None, None) => Err(Usage(
            "sign: name the repository's folder, or the request that waits with --request pending.json"
                .to_owned(),
        )
        .into()),
    }
}

fn at_home(repository: &Path, keys: &Path, request: Option<Change>, args: &Args) -> anyhow::Result<()> {
    let signers = args.signers.all()?;
    let mut publisher = Publisher::open_unfinished(repository, keys)?.with_signers(signers);
    if args.show {
        return match publisher.pending()? {
            Some(change) => show(&change, None, true, args.json.json),
            None => none(args.json.json),
        };
    }
    let signed = publisher.sign(request, Timestamp::now())?;
    if args.json.json {
        return print_json(&signed);
    }
    lines(&signed.changes)?;
    if signed.taken_up {
        return tell::taken_up(&signed.outcome, repository);
    }
    made(&signed.made)?;
    tell::outcome(&signed.outcome, repository)
}

fn elsewhere(path: &Path, root: Option<&[u8]>, args: &Args) -> anyhow::Result<()> {
    let mut signers = args.signers.all()?;
    if let Some(keys) = &args.keys {
        signers.extend(keys::load_all(keys)?.into_iter().map(Signer::from));
    }
    if signers.is_empty() {
        let detail = "sign: no key to sign with; give one with --sign-with, --signer or --keys";
        return Err(Usage(detail.to_owned()).into());
    }
    let (change, signatures) = pending::sign_request(path, &signers, root)?;
    let missing = change.missing()?;
    if args.json.json {
        return print_json(&json!({
            "changes": change.describe(), "made": signatures, "missing": missing, "request": path,
        }));
    }
    lines(&change.describe())?;
    made(&signatures)?;
    if missing.is_empty() {
        say!("All signatures of this round are there; bring {} home", path.display());
        return Ok(());
    }
    say!("Still missing:");
    tell::missing(&missing)
}

/// Runs `pending`.
pub fn pending(args: PendingArgs) -> anyhow::Result<()> {
    let keys = key_folder(&args.repository, args.keys.as_deref())?;
    let mut publisher = Publisher::open_unfinished(&args.repository, &keys)?;
    if args.discard {
        let there = publisher.discard()?;
        if args.json.json {
            return print_json(&json!({ "discarded": there }));
        }
        say!("{}", if there { "Given up" } else { "Nothing waited" });
        return Ok(());
    }
    match publisher.pending()? {
        None => none(args.json.json),
        Some(change) => show(&change, Some(&keys.join(pending::FILE)), true, args.json.json),
    }
}

fn none(json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&json!({ "changes": [], "missing": [] }));
    }
    say!("Nothing waits for signatures");
    Ok(())
}

fn show(change: &Change, path: Option<&Path>, is_vouched: bool, json: bool) -> anyhow::Result<()> {
    let missing = change.missing()?;
    if json {
        return print_json(&json!({ "changes": change.describe(), "missing": missing, "request": path }));
    }
    vouch(change, is_vouched)?;
    lines(&change.describe())?;
    if missing.is_empty() {
        say!("It has all signatures that can be made now");
        return Ok(());
    }
    say!("Missing:");
    tell::missing(&missing)
}

fn lines(changes: &[String]) -> anyhow::Result<()> {
    for change in changes {
        say!("{change}");
    }
    say!("");
    Ok(())
}

/// Says that nobody has compared whose repository it is.
fn vouch(change: &Change, is_vouched: bool) -> anyhow::Result<()> {
    if !is_vouched && let Some(root) = change.root() {
        say!(
            "Not compared with any root: what follows may be made up. Give the root.json that your devices pin with \
             --root (the first root of this request has SHA-256 {})\n",
            root?.sha256
        );
    }
    Ok(())
}

fn made(made: &[Made]) -> anyhow::Result<()> {
    for one in made {
        say!("Signed {} by key {}", one.role, short(&one.key));
    }
    Ok(())
}
