//! How setup tells what it found, wrote, and what is to be done next.

use super::apply::{Changes, Root};
use super::cameras::Found;
use super::lines::{Line, compare};
use super::operator::Grants;
use crate::cli::ui::{self, say};
use crate::config::{DEFAULT_PATH, Settings};
use crate::trust::identity::Identity;
use crate::trust::pin::Pinned;
use std::path::Path;

/// The cameras, and what else was seen.
pub fn found(cameras: &[Found], notes: &[String]) -> anyhow::Result<()> {
    for one in cameras {
        let name = if one.name.is_empty() { String::new() } else { format!(" \"{}\"", one.name) };
        match &one.trouble {
            None if one.offers.is_empty() => say!("found   {}{name}", one.camera),
            None => say!("found   {}{name}: {}", one.camera, one.offers),
            Some(trouble) => say!("{}  {trouble}", ui::styled(ui::WARN, "found ")),
        }
    }
    notes.iter().try_for_each(|note| ui::print(&format!("{note}\n")))
}

/// A root, so that somebody can compare it with the repository's owner's.
pub fn root(root: &Root) -> anyhow::Result<()> {
    let Pinned { sha256, version, expires, keys, thresholds } = &root.pinned;
    let until =
        expires.map_or_else(String::new, |time| format!(", good until {}", time.strftime("%Y-%m-%d")));
    say!("root    {}: version {version}{until}", root.from.display());
    say!("        SHA-256 {sha256}");
    for key in keys {
        let role = |role: &String| match thresholds.get(role) {
            Some(1) | None => role.clone(),
            Some(needed) => format!("{role} (one of {needed} needed)"),
        };
        let roles: Vec<String> = key.roles.iter().map(role).collect();
        say!("        key {} ({}) signs {}", key.id, key.scheme, roles.join(", "));
    }
    if root.is_new() {
        say!("        compare it with the owner's: sha256sum REPOSITORY/metadata/{version}.root.json");
    }
    Ok(())
}

/// What changes in the drop-in.
pub fn drop_in(changes: &Changes<'_>) -> anyhow::Result<()> {
    let path = changes.before.drop_in.display();
    if !changes.writes_drop_in() {
        say!("\n{path} stays as it is");
        return Ok(());
    }
    say!("\n{path}");
    for line in compare(changes.before.text.as_deref().unwrap_or_default(), &changes.text) {
        match line {
            Line::Same(text) => say!("    {text}"),
            Line::Gone(text) => say!("{}", ui::styled(ui::BAD, format!("  - {text}").trim_end())),
            Line::New(text) => say!("{}", ui::styled(ui::GOOD, format!("  + {text}").trim_end())),
        }
    }
    Ok(())
}

/// What the operator needs, and what comes next.
pub fn end(
    settings: &Settings,
    key: Option<&Identity>,
    grants: Option<&Grants>,
    config: &Path,
) -> anyhow::Result<()> {
    say!("\nFor the operator");
    say!("  device id   {}", settings.device.id);
    match key {
        Some(key) => {
            say!("  public key  ed25519 {}", key.public);
            say!("  key id      {}", key.id);
            match &key.recipient {
                Some(recipient) => say!("  recipient   {recipient}  (encrypts models for it)"),
                None if settings.runtime.model_keys.is_empty() => {}
                None => say!("  recipient   that of runtime.model_keys (no key of its own was made)"),
            }
        }
        None => say!("  public key  its key is still to be made"),
    }
    if let Some(grants) = grants {
        say!("\nOn the broker, if it is mosquitto with an acl_file, these lines let the device in:");
        grants.acl.iter().try_for_each(|line| ui::print(&format!("  {line}\n")))?;
        match (&grants.password, settings.mqtt.as_ref().and_then(|mqtt| mqtt.password_file.as_ref())) {
            (Some(command), Some(file)) => {
                say!("and this gives it its password, which is in {} here:\n  {command}", file.display())
            }
            (Some(command), None) => say!("and this gives it a password:\n  {command}"),
            (None, _) => say!(
                "It says no user name: whoever the broker lets in can pass for it, and may command it where commands \
                 need no signature; to give it one: edgewarden setup --username {}",
                settings.device.id
            ),
        }
    }
    say!("\nNext");
    next(settings, config).iter().try_for_each(|command| ui::print(&format!("  {command}\n")))
}

/// The next commands.
pub fn next(settings: &Settings, config: &Path) -> Vec<String> {
    let usual = config == Path::new(DEFAULT_PATH);
    let named = if usual { String::new() } else { format!(" --config {}", config.display()) };
    let mut commands = vec![match usual {
        true => "sudo systemctl restart edgewarden".to_owned(),
        false => format!("edgewarden run{named}"),
    }];
    commands.push(format!("edgewarden status{named}"));
    let slot = settings.pipelines.first().map(|pipeline| &pipeline.slot);
    match (slot, &settings.repository) {
        (Some(slot), Some(repository)) if repository.url.is_some() => {
            commands.push(format!("edgewarden update {slot} NAME@VERSION{named}"));
        }
        (Some(slot), Some(_)) => {
            commands.push(format!("edgewarden install FILE.bundle --slot {slot}{named}"));
        }
        (Some(_), None) | (None, _) => {}
    }
    commands
}
