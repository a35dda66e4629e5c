//! Where the broker is: from the command line, the environment, or the operator's own small file.

use crate::cli::exit::Usage;
use crate::config::settings::TlsSettings;
use crate::domain::Reason;
use crate::mqtt;
use crate::mqtt::operator::{Access, Operator, Reading};
use anyhow::Context;
use serde::Deserialize;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest file that is read, bytes.
const MAX_FILE: u64 = 64 << 10;
/// Longest wait for the broker.
const PATIENCE: Duration = Duration::from_secs(15);

/// The arguments of every command that needs the broker.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Broker")]
pub struct AccessArgs {
    /// The broker, such as mqtts://anna@broker.example.com, or wss://anna@broker.example.com/mqtt through a web server;
    /// others on this machine can see a password in it, so keep that in a file and name the file with --password-file
    #[arg(long, value_name = "URL", env = "EDGEWARDEN_BROKER", hide_env_values = true)]
    broker: Option<String>,
    /// File with the user's password
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// Certificate authority that has signed the broker's certificate, PEM [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Our own certificate chain, PEM, where the broker asks for one
    #[arg(long, value_name = "FILE")]
    cert: Option<PathBuf>,
    /// Its private key, PEM
    #[arg(long, value_name = "FILE")]
    cert_key: Option<PathBuf>,
    /// First level of the topics (mqtt.root of the devices) [default: edgewarden]
    #[arg(long, value_name = "ROOT")]
    root: Option<String>,
    /// Where these and the signing key stand as well [default: ~/.config/edgewarden/fleet.toml, where it is]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// The operator's own file, as it is written. What the command line or the environment says counts before it.
#[derive(Debug, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    broker: Option<String>,
    password_file: Option<PathBuf>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    cert_key: Option<PathBuf>,
    root: Option<String>,
    /// Signs commands.
    pub(super) key: Option<PathBuf>,
    /// A program that does.
    pub(super) signer: Option<String>,
    /// Its public key.
    pub(super) signer_key: Option<PathBuf>,
}

/// What is known before anything is connected.
#[derive(Debug)]
pub(super) struct Ready {
    access: Access,
    root: String,
    /// For the signing key.
    pub(super) file: File,
}

impl AccessArgs {
    /// Reads the file and the password.
    pub(super) fn ready(&self) -> anyhow::Result<Ready> {
        let file = self.file()?;
        let either =
            |given: &Option<PathBuf>, written: &Option<PathBuf>| given.clone().or_else(|| written.clone());
        let broker = self.broker.clone().or_else(|| file.broker.clone()).ok_or_else(|| {
            Usage(
                "no broker: give --broker mqtt://HOST, or set EDGEWARDEN_BROKER, or write it into \
                 ~/.config/edgewarden/fleet.toml as broker = \"mqtt://HOST\""
                    .to_owned(),
            )
        })?;
        let client = match (either(&self.cert, &file.cert), either(&self.cert_key, &file.cert_key)) {
            (Some(chain), Some(key)) => Some((chain, key)),
            (None, None) => None,
            (Some(_), None) => return Err(Usage("--cert without --cert-key: give both".to_owned()).into()),
            (None, Some(_)) => return Err(Usage("--cert-key without --cert: give both".to_owned()).into()),
        };
        let ca_file = either(&self.ca, &file.ca);
        let uses_tls = client.is_some() || ca_file.is_some();
        let mut access =
            Access::of_url(&broker, Some(TlsSettings { ca_file, client })).map_err(in_our_words)?;
        if uses_tls && access.tls.is_none() {
            let detail = "--ca and --cert are for an encrypted connection: write the broker as mqtts://HOST or wss://HOST";
            return Err(Usage(detail.to_owned()).into());
        }
        if let Some(path) = either(&self.password_file, &file.password_file) {
            let Some((_, password)) = &mut access.login else {
                let detail = "--password-file without a user: write the broker as mqtt://USER@HOST";
                return Err(Usage(detail.to_owned()).into());
            };
            if !password.is_empty() {
                let detail = "two passwords: one in the broker's URL, one in --password-file; give one";
                return Err(Usage(detail.to_owned()).into());
            }
            *password = mqtt::password(&path).map_err(in_our_words)?;
            access.password_file = Some(path);
        }
        let root = self.root.clone().or_else(|| file.root.clone()).unwrap_or_else(|| "edgewarden".to_owned());
        Ok(Ready { access, root, file })
    }

    fn file(&self) -> anyhow::Result<File> {
        match &self.config {
            Some(path) => read(path)?.with_context(|| format!("{}: there is no such file", path.display())),
            None => match default_file() {
                Some(path) => Ok(read(&path)?.unwrap_or_default()),
                None => Ok(File::default()),
            },
        }
    }
}

impl Ready {
    /// Connects.
    pub(super) async fn connect(&self) -> anyhow::Result<Operator> {
        let access = self.access.clone();
        let connected = Operator::open(access, &self.root, Vec::new(), Reading::Newest, PATIENCE).await;
        connected.map_err(|reason| in_our_words(reason).into())
    }
}

/// Names our options where the reason names the keys of a device's configuration.
fn in_our_words(reason: Reason) -> Reason {
    let ours = [
        ("mqtt.username and mqtt.password_file", "the user in --broker and --password-file"),
        ("mqtt.password_file", "--password-file"),
        ("mqtt.username", "the user in --broker"),
        ("mqtt.ca_file", "--ca"),
        ("mqtt.cert_file", "--cert"),
        ("mqtt.key_file", "--cert-key"),
        ("mqtt.url", "--broker"),
    ];
    let detail = ours.iter().fold(reason.detail, |detail, (theirs, ours)| detail.replace(theirs, ours));
    Reason::new(reason.code, detail)
}

/// By the rule of freedesktop.org.
fn default_file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let folder = set("XDG_CONFIG_HOME").or_else(|| Some(set("HOME")?.join(".config")))?;
    Some(folder.join("edgewarden/fleet.toml"))
}

/// The file; `None` where there is none. Paths in it count from its folder.
fn read(path: &Path) -> anyhow::Result<Option<File>> {
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let mut text = String::new();
    let read = file.take(MAX_FILE + 1).read_to_string(&mut text);
    if read.with_context(|| format!("read {}", path.display()))? as u64 > MAX_FILE {
        return Err(Usage(format!("{}: longer than {MAX_FILE} bytes", path.display())).into());
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    Ok(Some(parse(&text, folder).map_err(|what| Usage(format!("{}{what}", path.display())))?))
}

/// Reads the text; a fault begins with `:LINE: ` or `: `.
fn parse(text: &str, folder: &Path) -> Result<File, String> {
    let mut file: File = toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let line = line.map_or_else(String::new, |line| format!(":{line}"));
        format!("{line}: {}", error.message().replace('\n', " "))
    })?;
    let inline = file.broker.as_ref().and_then(|url| url::Url::parse(url).ok());
    if inline.is_some_and(|url| url.password().is_some()) {
        return Err(
            ": broker: no password may stand in this file; put it into a file of its own and name that in \
                    password_file"
                .to_owned(),
        );
    }
    let paths = [
        &mut file.password_file,
        &mut file.ca,
        &mut file.cert,
        &mut file.cert_key,
        &mut file.key,
        &mut file.signer_key,
    ];
    for path in paths.into_iter().flatten() {
        *path = folder.join(&*path);
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ReasonCode;

    fn args(broker: &str) -> AccessArgs {
        AccessArgs { broker: Some(broker.to_owned()), ..AccessArgs::default() }
    }

    #[test]
    fn the_file_is_read_strictly_and_its_paths_count_from_it() {
        let folder = Path::new("/home/anna/.config/edgewarden");
        let text = "broker = \"mqtts://anna@b\"\npassword_file = \"secret\"\nkey = \"/keys/anna.pem\"\n";
        let file = parse(text, folder).unwrap();
        assert_eq!(file.password_file.unwrap(), folder.join("secret"));
        assert_eq!(file.key.unwrap(), Path::new("/keys/anna.pem"));
        for (text, wanted) in [
            ("broker = \"mqtt://b\"\nbrokr = 1\n", &[":2: ", "brokr"][..]),
            ("broker = 7\n", &[":1: ", "string"]),
            ("broker = \n", &[":1: "]),
            ("broker = \"mqtt://anna:hush@b\"\n", &["password_file"]),
        ] {
            let fault = parse(text, folder).unwrap_err();
            assert!(wanted.iter().all(|word| fault.contains(word)), "{text}: {fault}");
            assert!(!fault.contains('\n') && !fault.contains("hush"), "{fault}");
        }
    }

    #[test]
    fn what_does_not_fit_together_is_told_before_anything_is_tried() {
        let dir = tempfile::tempdir().unwrap();
        let none = dir.path().join("fleet.toml");
        std::fs::write(&none, "").unwrap();
        let password = dir.path().join("password");
        std::fs::write(&password, "hush\n").unwrap();
        let fault = |args: AccessArgs| {
            let args = AccessArgs { config: Some(none.clone()), ..args };
            let error = args.ready().unwrap_err();
            assert_eq!(crate::cli::exit::status(&error), if error.is::<Usage>() { 64 } else { 1 });
            error.to_string()
        };
        let some = || Some(PathBuf::from("x"));
        assert!(fault(AccessArgs::default()).contains("no broker"));
        assert!(fault(AccessArgs { cert: some(), ..args("mqtts://b") }).contains("--cert-key"));
        assert!(fault(AccessArgs { cert_key: some(), ..args("mqtts://b") }).contains("--cert:"));
        assert!(fault(AccessArgs { ca: some(), ..args("mqtt://b") }).contains("mqtts://"));
        let with = |url| AccessArgs { password_file: Some(password.clone()), ..args(url) };
        assert!(fault(with("mqtt://b")).contains("USER@HOST"));
        assert!(fault(with("mqtt://u:p@b")).contains("two passwords"));
        assert!(
            fault(AccessArgs { password_file: some(), ..args("mqtt://u@b") }).contains("--password-file")
        );
        assert!(fault(args("http://b")).contains("broker URL"));
        let ready = AccessArgs { config: Some(none.clone()), ..with("mqtt://u@b") }.ready().unwrap();
        assert_eq!((ready.access.login.unwrap().1, ready.root), (b"hush".to_vec(), "edgewarden".to_owned()));
    }

    #[test]
    fn a_reason_names_our_options_and_no_keys_of_a_device() {
        let said = in_our_words(Reason::new(
            ReasonCode::BrokerRefused,
            "refuses user \"u\"; check mqtt.username and mqtt.password_file, mqtt.ca_file or mqtt.url",
        ));
        assert!(!said.detail.contains("mqtt."), "{said}");
        assert!(said.detail.contains("the user in --broker and --password-file, --ca or --broker"), "{said}");
    }
}
