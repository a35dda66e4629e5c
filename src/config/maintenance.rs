//! The keys of `[update]` that say when one may go on: windows, connection, the spread of a fleet.

use super::file::Section;
use super::value::{boolean, bytes, duration, one_of, text};
use crate::domain::maintenance::{Connection, MAX_WINDOWS, Metered, Rules, Window};
use std::time::Duration;

/// Longest spread: a week.
const MAX_JITTER: Duration = Duration::from_secs(7 * 86_400);

/// Reads them.
pub fn rules(section: &mut Section<'_>) -> Rules {
    let at = section.at.clone();
    let plain = Rules::default();
    let windows = section.list("windows", MAX_WINDOWS, |node| text(node)?.parse::<Window>());
    let rules = Rules {
        windows: windows.unwrap_or_default(),
        fetch_in_windows: section.or("fetch_in_windows", plain.fetch_in_windows, boolean),
        connection: section.or(
            "connection",
            plain.connection,
            one_of(&[
                ("auto", Connection::Auto),
                ("metered", Connection::Metered),
                ("unmetered", Connection::Unmetered),
            ]),
        ),
        metered: section.or(
            "metered",
            plain.metered,
            one_of(&[("never", Metered::Never), ("small", Metered::Small), ("always", Metered::Always)]),
        ),
        metered_max: section.or("metered_max", plain.metered_max, bytes(0..=1 << 40)),
        start_jitter: section.or("start_jitter", plain.start_jitter, duration(Duration::ZERO..=MAX_JITTER)),
    };
    if rules.fetch_in_windows && rules.windows.is_empty() {
        section.fault(
            &at,
            "fetch_in_windows",
            "there are no windows; name some in update.windows, or leave it out",
        );
    }
    rules
}
