//! What the commands say of a change, and of bytes on their way.

use super::super::ui::{self, say};
use crate::trust::public_key::short;
use crate::trust::publish::Outcome;
use crate::trust::publish::change::Missing;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use jiff::Timestamp;
use std::path::Path;

/// Where a change stands; `repository` for the next command.
pub fn outcome(outcome: &Outcome, repository: &Path) -> anyhow::Result<()> {
    match outcome {
        Outcome::Unchanged => say!("Nothing was to be changed"),
        Outcome::Live { resigned } => {
            for role in resigned {
                say!("Signed {} {}, good until {}", role.role, role.version, day(role.expires));
            }
            if resigned.iter().any(|role| role.role == "root" && role.version == 1) {
                let root = repository.join(crate::bundle::layout::metadata("1.root.json"));
                say!("\nRoot  {}  (copy it to each device as /etc/edgewarden/root.json)", root.display());
            }
        }
        Outcome::Waiting { request, missing } => {
            say!("Not published yet: it waits for signatures");
            self::missing(missing)?;
            say!("\nCarry {} to a signer; there:", request.display());
            let begun = repository.join(crate::bundle::layout::metadata("1.root.json")).exists();
            let root = if begun { " --root root.json" } else { "" };
            say!("  edgewarden repo sign --request pending.json{root} --sign-with KEY.pem");
            if begun {
                say!("(root.json: the signer's own copy of the one that your devices pin)");
            }
            say!("Then bring it back; here:");
            say!("  edgewarden repo sign {} --request pending.json", repository.display());
        }
    }
    Ok(())
}

/// What is to be done with a change from another place.
pub fn taken_up(outcome: &Outcome, repository: &Path) -> anyhow::Result<()> {
    say!("This change did not wait here. Nothing was signed or published; from now on it waits.");
    if let Outcome::Waiting { missing, .. } = outcome
        && !missing.is_empty()
    {
        say!("Missing:");
        self::missing(missing)?;
    }
    let place = repository.display();
    say!("\nRead what it does. To go on with it:   edgewarden repo sign {place}");
    say!("To give it up:                         edgewarden repo pending {place} --discard");
    Ok(())
}

/// Which signatures are missing.
pub fn missing(missing: &[Missing]) -> anyhow::Result<()> {
    let mut table = ui::table(&["  ROLE", "SIGNED", "MAY SIGN"]);
    for one in missing {
        let may: Vec<String> = one.may_sign.iter().map(|id| short(id)).collect();
        let signed = format!("{} of {}", one.have, one.threshold);
        table.add_row([format!("  {}", one.role), signed, may.join(" ")]);
    }
    ui::print(&ui::render(&table))
}

/// A day in UTC.
pub fn day(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d").to_string()
}

/// Bytes for people.
pub fn bytes(n: u64) -> String {
    indicatif::BinaryBytes(n).to_string()
}

/// A progress bar on standard error, for copies that take long enough to wonder.
pub struct Bar(ProgressBar);

impl Bar {
    /// Below this nobody waits.
    const LEAST: u64 = 16 << 20;

    /// For so many bytes.
    pub fn new(total: u64) -> Self {
        let target =
            if total < Self::LEAST { ProgressDrawTarget::hidden() } else { ProgressDrawTarget::stderr() };
        let style = ProgressStyle::with_template(
            "{bar:30} {binary_bytes}/{binary_total_bytes} {binary_bytes_per_sec}",
        );
        let bar = ProgressBar::with_draw_target(Some(total), target);
        Self(match style {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        })
    }

    /// So many of them are done.
    pub fn at(&self, bytes: u64) {
        self.0.set_position(bytes);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
