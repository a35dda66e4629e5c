//! `edgewarden bundle seal`: lists the files of a bundle anew, with its maker's signature, and encrypts it.

use crate::bundle::{self, OpenBundle, secret};
use crate::cli::encrypt::EncryptArgs;
use crate::cli::exit::{Own, Usage};
use crate::cli::ui::{self, say};
use crate::domain::Reason;
use crate::sys::durable;
use crate::trust::model_signature::{self, SigningKey};
use anyhow::Context;
use std::io::Read;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle's folder
    dir: PathBuf,
    /// Put in this OpenSSF model signature (`model.sig`), made where the model was trained
    #[arg(long, value_name = "FILE", conflicts_with = "model_signature_key")]
    model_signature: Option<PathBuf>,
    /// Sign the model now, with this private key (ECDSA P-256, PEM)
    #[arg(long, value_name = "KEY")]
    model_signature_key: Option<PathBuf>,
    #[command(flatten)]
    encrypt: EncryptArgs,
    /// The new folder of the encrypted bundle; DIR stays as it is, in plain
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Print the release and its digest as JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let recipients = args.encrypt.recipients()?;
    match (&args.output, recipients.is_empty()) {
        (None, false) => {
            let detail =
                "the plain bundle is not written over; name the folder of the encrypted one with --output";
            return Err(Usage(detail.into()).into());
        }
        (Some(_), true) => {
            return Err(Usage("--output is the encrypted bundle's; give --encrypt-to as well".into()).into());
        }
        (None, true) | (Some(_), false) => {}
    }
    bundle::seal(&args.dir).map_err(Own)?;
    sign(&args)?;
    let mut bundle = bundle::open(&args.dir, None).map_err(Own)?;
    if let Some(to) = &args.output {
        secret::encrypted_copy(&bundle, to, &recipients, &|_| {})?;
        bundle = bundle::open(to, None)?;
    }
    tell(&args, &bundle)
}

/// Puts the signature in, where one is given or to be made.
fn sign(args: &Args) -> anyhow::Result<()> {
    let (manifest, _) = bundle::read(&args.dir).map_err(Own)?;
    let bytes = match (&args.model_signature, &args.model_signature_key) {
        (Some(path), _) => {
            let bytes = read(path)?;
            model_signature::is_about(&bytes, &manifest).map_err(|reason| {
                Reason::new(reason.code, format!("{}: {}", path.display(), reason.detail))
            })?;
            bytes
        }
        (None, Some(key)) => model_signature::make(&manifest, &SigningKey::load(key)?)?,
        (None, None) => return Ok(()),
    };
    durable::write_atomic(&args.dir.join(model_signature::FILE), &bytes).map_err(Reason::from)?;
    bundle::seal(&args.dir).map_err(Own)?;
    Ok(())
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(model_signature::MAX_FILE + 1).read_to_end(&mut bytes))
        .with_context(|| format!("read {}", path.display()))?;
    Ok(bytes)
}

fn tell(args: &Args, bundle: &OpenBundle) -> anyhow::Result<()> {
    let manifest = &bundle.manifest;
    let release = manifest.release();
    let signed = manifest.files.iter().any(|file| file.path == model_signature::FILE);
    let recipients = manifest.encryption.as_ref().map(|encryption| &encryption.recipients);
    if args.json {
        let mut said = serde_json::json!({"release": release, "digest": bundle.digest});
        if signed {
            said["model_signature"] = model_signature::FILE.into();
        }
        if let Some(recipients) = recipients {
            said["encrypted_to"] = serde_json::json!(recipients);
            said["folder"] = serde_json::json!(bundle.dir);
        }
        return ui::print_json(&said);
    }
    say!("{release} holds {}, digest {}", ui::count(manifest.files.len(), "file"), bundle.digest);
    if let Some(recipients) = recipients {
        let whom = ui::count(recipients.len(), "recipient");
        say!("Its model is encrypted for {whom}, in {}", bundle.dir.display());
    }
    Ok(())
}
