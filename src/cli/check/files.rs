//! What the check sees of the files that connections are made with: when the device's own certificates end,
//! and which secrets every user of the machine may read.

use super::Finding;
use crate::config::Settings;
use crate::config::settings::{ProxySettings, TlsSettings};
use crate::sys::secret;
use crate::sys::tls;
use jiff::{SignedDuration, Timestamp};
use std::path::Path;

/// A certificate that ends within this time wants to be renewed now.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The certificates, and of the secrets those that are open.
pub fn findings(settings: &Settings) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(mqtt) = &settings.mqtt {
        certificate("mqtt", mqtt.tls.as_ref(), &mut findings);
        findings.extend(mqtt.password_file.as_deref().and_then(|file| open("mqtt.password_file", file)));
    }
    if let Some(repository) = &settings.repository {
        let access = &repository.access;
        certificate("repository", Some(&access.tls), &mut findings);
        findings.extend(access.token_file.as_deref().and_then(|file| open("repository.token_file", file)));
        if let ProxySettings::Through { login: Some((_, file)), .. } = &access.proxy {
            findings.extend(open("repository.proxy_password_file", file));
        }
    }
    findings
}

fn certificate(table: &str, settings: Option<&TlsSettings>, findings: &mut Vec<Finding>) {
    let Some((chain, key)) = settings.and_then(|tls| tls.client.as_ref()) else { return };
    let name = format!("{table}.cert_file");
    findings.push(match tls::ends(&name, chain) {
        Ok(end) => lasts(&name, chain, end, Timestamp::now()),
        Err(reason) => Finding::fail(name, reason.detail),
    });
    findings.extend(open(&format!("{table}.key_file"), key));
}

fn lasts(name: &str, chain: &Path, end: Timestamp, now: Timestamp) -> Finding {
    let shown = chain.display();
    let until = end.strftime("%Y-%m-%d %H:%M UTC");
    if end <= now {
        return Finding::fail(name, format!("{shown}: expired on {until}; put a new one there with its key"));
    }
    if end.duration_since(now) < SOON {
        return Finding::warn(
            name,
            format!("{shown}: ends on {until}; put a new one there with its key soon"),
        );
    }
    Finding::ok(name, format!("{shown}: good until {until}"))
}

/// A secret that every user may read. One that cannot be looked at is told by who uses it.
fn open(name: &str, file: &Path) -> Option<Finding> {
    let metadata = file.metadata().ok()?;
    secret::is_open(&metadata).then(|| Finding::warn(name, format!("{}: {}", file.display(), secret::CLOSE)))
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    #[test]
    fn a_certificate_is_told_before_it_ends() {
        let now: Timestamp = "2026-05-01T00:00:00Z".parse().unwrap();
        for (end, level, words) in [
            ("2026-04-30T23:59:59Z", Level::Fail, "expired on 2026-04-30"),
            ("2026-05-10T12:00:00Z", Level::Warn, "ends on 2026-05-10 12:00 UTC"),
            ("2027-05-01T00:00:00Z", Level::Ok, "good until 2027-05-01"),
        ] {
            let found = lasts("mqtt.cert_file", Path::new("/x.pem"), end.parse().unwrap(), now);
            assert_eq!(found.level, level, "{end}");
            assert!(found.detail.contains(words), "{}", found.detail);
        }
    }
}
