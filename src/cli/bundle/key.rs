//! `edgewarden bundle key`: keys that open encrypted models.

use crate::bundle::secret;
use crate::cli::exit::Usage;
use crate::cli::ui;
use crate::sys::age::Identity;
use crate::sys::durable;
use anyhow::Context;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The key file, as `age-keygen` writes it
    file: PathBuf,
    /// Make a new key in it, such as for a group of devices
    #[arg(long)]
    new: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    if args.new {
        let key = Identity::generate().context("make a key")?;
        durable::create_key_file(&args.file, key.key_file().as_bytes())?;
    }
    let keys = secret::read_keys(&args.file).map_err(Usage)?;
    let recipients: Vec<_> = keys.iter().map(|key| key.recipient().to_string()).collect();
    if args.json {
        return ui::print_json(&serde_json::json!({ "file": args.file, "recipients": recipients }));
    }
    recipients.iter().try_for_each(|recipient| ui::print(&format!("{recipient}\n")))
}
