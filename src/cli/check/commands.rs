//! What the check sees of the commands over MQTT: who may command this device.

use super::Finding;
use crate::cli::ui;
use crate::config::Settings;
use crate::domain::authority::Role;
use crate::trust::operators::{self, Operators};

/// Who may change this device by a command; `None` without a broker.
pub fn commands(settings: &Settings) -> Option<Finding> {
    let host = &settings.mqtt.as_ref()?.host;
    let policy = settings.commands.policy(host);
    let known = settings.repository.as_ref().map_or_else(
        || Ok(Operators::none()),
        |repository| {
            // Whether it can be read is told by the repository's own finding.
            let pinned = std::fs::read(&repository.root).unwrap_or_default();
            operators::kept(&pinned, &settings.paths.state.join("metadata"))
        },
    );
    let listed = known.as_ref().map_or(true, Operators::is_listed);
    let open = policy.unsigned(Role::Deploy, listed).is_ok();
    let finding = match known {
        Err(reason) => Finding::warn("commands", reason.detail),
        Ok(_) if open && policy.loopback => {
            let detail =
                format!("no signature is asked for: who may publish to {host} may command this device");
            Finding::ok("commands", detail)
        }
        Ok(_) if open => {
            let remedy =
                "leave commands.insecure out, or restrict the cmd/ topics by the broker's access list";
            let detail = format!(
                "insecure: no signature is asked for, and who may publish to {host} may command this device"
            );
            Finding::warn("commands", format!("{detail}; {remedy}"))
        }
        Ok(known) if listed => {
            let count = ui::count(known.iter().count(), "operator");
            Finding::ok("commands", format!("must be signed; {count} may (`edgewarden sign-command`)"))
        }
        Ok(known) if known.iter().next().is_some() => {
            let detail = "must be signed with the key that signs the releases (`edgewarden sign-command`), as no \
                          operators are listed";
            Finding::ok("commands", detail)
        }
        Ok(_) => {
            let remedy = "list operators with `edgewarden repo operators set`, or, on a bench, set commands.insecure \
                          = true";
            Finding::warn("commands", format!("must be signed, and there is nobody who may; {remedy}"))
        }
    };
    Some(finding)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::Level;
    use crate::config::{Surroundings, from_text};
    use crate::trust::{InitOptions, Publisher};

    #[test]
    fn it_says_who_may_command() {
        let dir = tempfile::tempdir().unwrap();
        let now = jiff::Timestamp::now();
        let (fleet, keys) = (dir.path().join("fleet"), dir.path().join("keys"));
        let publisher = Publisher::init(&fleet, &keys, InitOptions::default(), now).unwrap();
        std::fs::copy(publisher.pinned_root(), dir.path().join("root.json")).unwrap();
        let said = |text: &str| {
            let text = format!("[paths]\nstate = \"state\"\n{text}");
            let settings = from_text(&text, dir.path(), &Surroundings::default()).unwrap();
            commands(&settings).map(|finding| (finding.level, finding.detail))
        };
        assert_eq!(said(""), None);
        for (text, level, words) in [
            ("[mqtt]\nurl = \"mqtt://localhost\"\n", Level::Ok, "no signature is asked for"),
            (
                "[mqtt]\nurl = \"mqtt://b\"\n[commands]\ninsecure = true\n",
                Level::Warn,
                "leave commands.insecure out",
            ),
            ("[mqtt]\nurl = \"mqtt://b\"\n", Level::Warn, "nobody who may"),
            ("[mqtt]\nurl = \"mqtt://b\"\n[repository]\n", Level::Ok, "the key that signs the releases"),
            (
                "[mqtt]\nurl = \"mqtt://localhost\"\n[commands]\nrequire_signature = true\n[repository]\n",
                Level::Ok,
                "the key that signs the releases",
            ),
        ] {
            let (found, detail) = said(text).unwrap();
            assert!(found == level && detail.contains(words), "{text}: {found:?} {detail}");
        }
    }
}
