//! The agent's TUF client behind the command line of the TUF conformance suite
//! (`packaging/tuf-conformance.sh`): the same client, store and HTTP transport, with nothing of the update
//! workflow decided here.
//!
//! ```text
//! [--as-shipped] --metadata-dir D init ROOT
//! [--as-shipped] --metadata-dir D --metadata-url U refresh
//! [--as-shipped] --metadata-dir D --metadata-url U --target-name P… --target-base-url U --target-dir T download
//! ```
//!
//! It ends with 0 or 1. Without `--as-shipped` it also verifies ECDSA on P-256 and RSA-PSS, with which the
//! suite signs; the agent verifies neither. In no package.

#[path = "../../src/trust/provider.rs"]
#[expect(dead_code, reason = "how the agent installs it is not needed here")]
mod provider;

use clap::{Parser, Subcommand};
use edgewarden::config::settings::{AccessSettings, RepositorySettings};
use edgewarden::domain::{Reason, ReasonCode};
use edgewarden::trust::RepositoryClient;
use edgewarden::trust::transport::{BoxFuture, OnBytes, Transport};
use edgewarden::update::http::HttpTransport;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ring::signature::{
    ECDSA_P256_SHA256_ASN1, RSA_PSS_2048_8192_SHA256, UnparsedPublicKey, VerificationAlgorithm,
};
use sigstore_crypto::{CryptoProvider, Error, HashContext, SigningScheme};
use sigstore_types::HashAlgorithm;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

#[derive(Debug, Parser)]
struct Arguments {
    /// Verify what the agent verifies: ed25519 alone.
    #[arg(long)]
    as_shipped: bool,
    #[arg(long)]
    metadata_dir: PathBuf,
    #[arg(long)]
    metadata_url: Option<Url>,
    #[arg(long = "target-name")]
    target_names: Vec<String>,
    #[arg(long)]
    target_base_url: Option<Url>,
    #[arg(long)]
    target_dir: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Pins a root.
    Init { root: PathBuf },
    /// Brings the metadata up to date.
    Refresh,
    /// The same, and then fetches targets.
    Download,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("{} {reason}", reason.code.as_str());
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<(), Reason> {
    if !arguments.as_shipped {
        // First come, first served: the client then leaves it in place.
        sigstore_crypto::install_default_provider(&Wider).expect("nobody was here before");
    }
    // In a folder of its own: `root.json` is the newest one, and a device pins its first one for good.
    let pinned = arguments.metadata_dir.join("pinned/root.json");
    if let Command::Init { root } = &arguments.command {
        return keep(&pinned, &read(root)?);
    }
    let transport = Routes {
        metadata: http(arguments.metadata_url.as_ref())?,
        targets: http(arguments.target_base_url.as_ref().or(arguments.metadata_url.as_ref()))?,
    };
    let client = RepositoryClient::new(Arc::new(transport), read(&pinned)?, arguments.metadata_dir.clone())
        .keeping_all();
    // Not the agent's own clock: the suite plays past and future, of which that one would remember the latest.
    let mut session = client.open(jiff::Timestamp::now()).await?;
    if matches!(arguments.command, Command::Refresh) {
        return Ok(());
    }
    let folder = arguments.target_dir.as_deref().ok_or_else(|| wanting("--target-dir"))?;
    for name in &arguments.target_names {
        let target = session.find(name).await?;
        let target = target.ok_or_else(|| Reason::new(ReasonCode::NotFound, format!("target {name}")))?;
        let bytes = session.fetch(&target).await?;
        let file = folder.join(utf8_percent_encode(name, NON_ALPHANUMERIC).to_string());
        // The suite goes by the times of the files.
        if std::fs::read(&file).ok().as_deref() != Some(&bytes) {
            keep(&file, &bytes)?;
        }
    }
    Ok(())
}

fn wanting(option: &str) -> Reason {
    Reason::new(ReasonCode::BadRequest, format!("{option} is missing"))
}

fn failed(path: &Path) -> impl FnOnce(std::io::Error) -> Reason {
    move |error| Reason::new(ReasonCode::Internal, format!("{}: {error}", path.display()))
}

fn read(path: &Path) -> Result<Vec<u8>, Reason> {
    std::fs::read(path).map_err(failed(path))
}

fn keep(path: &Path, bytes: &[u8]) -> Result<(), Reason> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).map_err(failed(folder))?;
    }
    std::fs::write(path, bytes).map_err(failed(path))
}

fn http(base: Option<&Url>) -> Result<HttpTransport, Reason> {
    let base = base.ok_or_else(|| wanting("--metadata-url"))?;
    let settings = RepositorySettings {
        url: Some(base.clone()),
        root: PathBuf::new(),
        stall_timeout: Duration::from_secs(10),
        retries: 1,
        rate_limit: 0,
        access: AccessSettings::default(),
    };
    HttpTransport::new(base, &settings)
}

/// The suite serves metadata and targets at addresses of their own; the agent's repositories have both
/// below one.
struct Routes {
    metadata: HttpTransport,
    targets: HttpTransport,
}

impl Transport for Routes {
    fn get<'a>(&'a self, path: &'a str, max: u64) -> BoxFuture<'a, Result<Option<Vec<u8>>, Reason>> {
        match path.split_once('/') {
            Some(("metadata", rest)) => self.metadata.get(rest, max),
            Some(("targets", rest)) => self.targets.get(rest, max),
            _ => Box::pin(async { Ok(None) }),
        }
    }

    fn download<'a>(
        &'a self,
        path: &'a str,
        _: u64,
        _: &'a Path,
        _: OnBytes<'a>,
    ) -> BoxFuture<'a, Result<(), Reason>> {
        Box::pin(async move { Err(Reason::new(ReasonCode::Internal, format!("{path}: no blobs here"))) })
    }
}

/// The agent's cryptography, and two schemes more.
#[derive(Debug)]
struct Wider;

impl CryptoProvider for Wider {
    fn hash(&self, algorithm: HashAlgorithm) -> sigstore_crypto::Result<Box<dyn HashContext>> {
        provider::Provider.hash(algorithm)
    }

    fn verify_raw(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        data: &[u8],
        signature: &[u8],
    ) -> sigstore_crypto::Result<()> {
        let algorithm: &'static dyn VerificationAlgorithm = match scheme {
            SigningScheme::EcdsaP256Sha256 => &ECDSA_P256_SHA256_ASN1,
            SigningScheme::RsaPssSha256 => &RSA_PSS_2048_8192_SHA256,
            other => return provider::Provider.verify_raw(other, key, data, signature),
        };
        let verified = UnparsedPublicKey::new(algorithm, key).verify(data, signature);
        verified.map_err(|_| Error::Verification(scheme.name().to_owned()))
    }

    fn verify_prehashed(
        &self,
        scheme: SigningScheme,
        key: &[u8],
        digest: &[u8],
        signature: &[u8],
    ) -> sigstore_crypto::Result<()> {
        provider::Provider.verify_prehashed(scheme, key, digest, signature)
    }
}
