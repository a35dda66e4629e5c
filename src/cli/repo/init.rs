//! `edgewarden repo init`: begins a repository, of one person or of a team.

use super::super::ui::{self, print_json, say};
use super::place::{ForRoles, Place};
use super::tell;
use crate::trust::public_key::PublicKey;
use crate::trust::publish::{Founding, Outcome};
use crate::trust::{Expiry, Publisher};
use jiff::Timestamp;
use serde_json::json;
use std::path::Path;

const EXAMPLES: &str = "\
Examples:
  One person, one key:
    edgewarden repo init fleet

  A team: two of three sign the root and the releases, each with a key of their own made at their own
  place by `edgewarden repo key new NAME.pem`; the key folder's key renews what expires soon:
    edgewarden repo init fleet --role-key root,targets=alice.pub --role-key root,targets=bob.pub \\
      --role-key root,targets=carol.pub --threshold root,targets=2
    edgewarden repo sign --request pending.json --sign-with alice.pem   (at Alice's, then at Bob's)
    edgewarden repo sign fleet --request pending.json";

/// Arguments.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    place: Place,
    /// A public key that may sign for these roles (root, targets, snapshot, timestamp); roles without any
    /// get the keys of the key folder; may be given several times
    #[arg(long, value_name = "ROLES=KEY.pub")]
    role_key: Vec<ForRoles>,
    /// How many of their keys these roles need [default: 1]
    #[arg(long, value_name = "ROLES=N")]
    threshold: Vec<ForRoles>,
    /// Days until a device no longer believes that it sees the newest state: publish or refresh sooner
    #[arg(long, value_name = "DAYS", default_value_t = Expiry::default().timestamp, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    expires_days: u32,
    /// Days until the keys must be confirmed; done by itself when half of them are over
    #[arg(long, value_name = "DAYS", default_value_t = Expiry::default().root, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    root_expires_days: u32,
    #[command(flatten)]
    json: ui::Json,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let keys = args.place.keys()?;
    let days = args.expires_days;
    let expiry =
        Expiry { root: args.root_expires_days, snapshot: days, timestamp: days, ..Expiry::default() };
    let mut founding = Founding { expiry, ..Founding::default() };
    for given in &args.role_key {
        let key = PublicKey::load(Path::new(&given.value))?;
        for role in &given.roles {
            founding.keys.entry(role.clone()).or_default().push(key.clone());
        }
    }
    for given in &args.threshold {
        let threshold = given.number()?;
        founding.thresholds.extend(given.roles.iter().map(|role| (role.clone(), threshold)));
    }
    let repository = &args.place.repository;
    let signers = args.place.signers.all()?;
    let (publisher, outcome) = Publisher::found(repository, &keys, &founding, signers, Timestamp::now())?;
    let root = publisher.pinned_root();
    if args.json.json {
        return print_json(
            &json!({ "repository": repository, "keys": keys, "root": root, "outcome": outcome }),
        );
    }
    let dir = repository.display();
    say!("Repository  {dir}");
    say!("Keys        {}  (back this folder up and keep it off the web server)", keys.display());
    if let Outcome::Waiting { .. } = outcome {
        return tell::outcome(&outcome, repository);
    }
    say!("Root        {}  (copy it to each device as /etc/edgewarden/root.json)", root.display());
    say!("\nNext: edgewarden repo publish {dir} BUNDLE_DIR");
    Ok(())
}
