//! `edgewarden setup`: makes a machine a device. It finds cameras and a broker, pins the repository's
//! root, makes the device's own key, and writes one drop-in; what it does not know it asks the person at
//! the terminal, or leaves out and says so.
//!
//! It never touches `agent.toml` and restarts nothing. Enrolling ends here with the pinned root and the
//! key: what the key is for is the agent's affair.

mod apply;
mod ask;
mod before;
mod cameras;
mod gather;
mod lines;
mod operator;
mod owner;
mod plan;
mod report;

use super::check::{self, Finding, Level};
use super::exit::{Told, Usage};
use super::ui::{self, Json};
use crate::config::{DEFAULT_PATH, Settings};
use crate::domain::DeviceId;
use crate::trust::identity::Identity;
use apply::{Changes, Root};
use ask::Person;
use before::Before;
use operator::Grants;
use owner::Owner;
use plan::{Wish, Wishes};
use serde_json::json;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The configuration; setup writes config.d/50-setup.toml beside it
    #[arg(long, short, value_name = "FILE", default_value = DEFAULT_PATH, env = "EDGEWARDEN_CONFIG")]
    config: PathBuf,
    /// The device's id, unique in the fleet [default: the host name]
    #[arg(long, value_name = "ID")]
    device_id: Option<DeviceId>,
    /// A group whose commands the device obeys as well; may be given several times
    #[arg(long = "group", value_name = "GROUP")]
    groups: Vec<DeviceId>,
    /// What it looks at: a camera's device file, csi:0, an rtsp:// or http:// URL, a folder of pictures, a video
    /// file, synthetic, or none [default: the only camera found]
    #[arg(long, value_name = "CAMERA")]
    camera: Option<String>,
    /// The broker: mqtt://HOST or mqtts://HOST, or none [default: localhost, where one answers]
    #[arg(long, value_name = "URL")]
    broker: Option<String>,
    /// The user name for the broker; without a password file its password is made
    #[arg(long, value_name = "NAME")]
    username: Option<String>,
    /// The file with the broker's password, or credential:NAME
    #[arg(long, value_name = "FILE")]
    password_file: Option<String>,
    /// The certificate authority of an mqtts:// broker (PEM) [default: those of the system]
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// The repository of signed models: http://, https://, file:// or a folder, or none
    #[arg(long, value_name = "URL")]
    repository: Option<String>,
    /// The repository's root.json, which is copied beside the configuration and trusted from then on
    #[arg(long, value_name = "FILE")]
    root: Option<PathBuf>,
    /// Ask nothing, and replace what an earlier setup wrote
    #[arg(long, short)]
    yes: bool,
    /// Show what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Do not look whether the result would run, as on a machine that is prepared for another place
    #[arg(long)]
    no_check: bool,
    #[command(flatten)]
    json: Json,
}

/// Runs the command. Exit status 1 when something would not run; what was asked for is written all the
/// same.
pub fn run(args: Args) -> anyhow::Result<()> {
    let person = Person::here(args.yes || args.json.json);
    let before = Before::read(&args.config)?;
    let cameras = cameras::find();
    let mut notes = Vec::new();
    if before.is_damaged() {
        let file = before.drop_in.display();
        notes.push(format!("{file} cannot be read as TOML: nothing of it is kept"));
    }
    if !args.json.json {
        report::found(&cameras, &[])?;
    }
    let wishes = gather::gather(&args, &before, person, &cameras, &mut notes)?;
    let changes = changes(&args, &before, person, wishes)?;
    if Owner::is_missing(&changes.settings.paths.state) {
        notes.push("there is no user edgewarden: the device's key will be root's alone".to_owned());
    }
    if !args.json.json {
        report::found(&[], &notes)?;
        changes.root.as_ref().map_or(Ok(()), report::root)?;
        report::drop_in(&changes)?;
    }
    let (key, written) = if args.dry_run {
        (changes.key.clone(), Vec::new())
    } else {
        agreed(&changes, person, args.yes)?;
        let (key, written) = changes.write()?;
        (Some(key), written)
    };
    if !args.json.json {
        written.iter().try_for_each(|path| ui::print(&format!("wrote   {}\n", path.display())))?;
        ui::print("\n")?;
    }
    let findings = if args.no_check { Vec::new() } else { look(&args, &changes)? };
    let grants = Grants::of(&changes.settings)?;
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (failed, warned) = (count(Level::Fail), count(Level::Warn));
    if !(args.json.json || args.no_check) {
        ui::print(&check::summary(failed, warned))?;
    }
    let settings = &changes.settings;
    if args.json.json {
        ui::print_json(&json!({
            "ok": failed == 0,
            "device": settings.device.id,
            "groups": settings.device.groups,
            "key": key,
            "cameras": cameras,
            "drop_in": { "file": before.drop_in, "text": changes.text, "changed": changes.writes_drop_in() },
            "root": changes.root.as_ref().map(|root| &root.pinned),
            "written": written,
            "dry_run": args.dry_run,
            "notes": notes,
            "broker": grants,
            "findings": findings,
            "next": report::next(settings, &before.config),
        }))?;
    } else {
        report::end(settings, key.as_ref(), grants.as_ref(), &before.config)?;
    }
    if failed == 0 { Ok(()) } else { Err(Told.into()) }
}

/// Everything that would change, checked as far as it can be without writing it.
fn changes<'b>(
    args: &Args,
    before: &'b Before,
    person: Person,
    mut wishes: Wishes,
) -> anyhow::Result<Changes<'b>> {
    let draft = before.settings_with(&plan::text(&plan::lay(before.tables.clone(), &wishes))?)?;
    let root = root(args, person, &draft)?.map(|from| Root::read(&from, before)).transpose()?;
    if root.is_some() && wishes.repository != Wish::Remove {
        wishes.root = Some(plan::absolute(&before.root())?);
    }
    let text = plan::text(&plan::lay(before.tables.clone(), &wishes))?;
    let settings = before.settings_with(&text)?;
    let key = match Identity::of(&settings.paths.state) {
        // Who only looks may not be able to read it.
        Err(_) if args.dry_run => None,
        key => key?,
    };
    let password = settings.mqtt.as_ref().and_then(|mqtt| mqtt.password_file.clone());
    let password = password.is_some_and(|file| file == before.password());
    let changes = Changes { before, text, settings, root, password, key };
    if !args.dry_run {
        changes.may_be_written()?;
    }
    Ok(changes)
}

/// The root that is to be pinned; `None` where one is already, or none is needed.
fn root(args: &Args, person: Person, draft: &Settings) -> anyhow::Result<Option<PathBuf>> {
    if args.root.is_some() {
        return Ok(args.root.clone());
    }
    let Some(repository) = draft.repository.as_ref().filter(|repository| !repository.root.exists()) else {
        return Ok(None);
    };
    let question = "File with the repository's root.json (its owner has it as metadata/1.root.json):";
    if let Some(file) = person.ask(question)? {
        return Ok(Some(file.into()));
    }
    let detail = format!(
        "a repository is configured and {} is not there; name its root.json with --root: its owner has it as \
         metadata/1.root.json",
        repository.root.display()
    );
    Err(Usage(detail).into())
}

/// Whether what is there may be replaced.
fn agreed(changes: &Changes<'_>, person: Person, yes: bool) -> anyhow::Result<()> {
    let replaced: Vec<String> = changes.replaced().iter().map(|path| path.display().to_string()).collect();
    if replaced.is_empty() || yes {
        return Ok(());
    }
    let replaced = replaced.join(" and ");
    if !person.is_there() {
        let remedy = "look at the change with --dry-run, then add --yes";
        return Err(Usage(format!("{replaced}: is there and would be replaced; {remedy}")).into());
    }
    if person.agrees(&format!("Replace {replaced}?"))? {
        return Ok(());
    }
    anyhow::bail!("nothing was changed")
}

/// Whether the result would run, by the same looks as `edgewarden check`.
fn look(args: &Args, changes: &Changes<'_>) -> anyhow::Result<Vec<Finding>> {
    let mut settings = changes.settings.clone();
    let mut unasked = None;
    if args.dry_run {
        // What would be written is looked at where it is now.
        if let (Some(repository), Some(root)) = (&mut settings.repository, &changes.root) {
            repository.root.clone_from(&root.from);
        }
        if changes.makes_password().is_some() {
            settings.mqtt = None;
            unasked = Some("not asked: the password for it is still to be made");
        }
    }
    let mut findings = Vec::new();
    check::examine(&settings, &mut |mut finding| {
        if let ("broker", Some(why)) = (finding.subject.as_str(), unasked) {
            finding = Finding::warn("broker", why);
        }
        if !args.json.json {
            ui::print(&check::line(&finding))?;
        }
        findings.push(finding);
        Ok(())
    })?;
    Ok(findings)
}
