//! When an update may go on.

use super::*;
use crate::domain::maintenance::{Connection, Metered};

#[test]
fn the_rules_for_time_and_connection_are_read_and_checked() {
    let text = format!(
        "{SMALLEST}[update]\nwindows = [\"02:00-05:00\", \"Sat,Sun 00:00-24:00\"]\nfetch_in_windows = true\n\
         connection = \"metered\"\nmetered = \"small\"\nmetered_max = \"300kB\"\nstart_jitter = \"2h\"\n"
    );
    let rules = read(&text).unwrap().update.rules;
    let windows: Vec<String> = rules.windows.iter().map(ToString::to_string).collect();
    assert_eq!(windows, ["02:00-05:00", "Sat,Sun 00:00-24:00"]);
    assert!(rules.fetch_in_windows);
    assert_eq!((rules.connection, rules.metered), (Connection::Metered, Metered::Small));
    assert_eq!((rules.metered_max, rules.start_jitter), (300_000, Duration::from_secs(7200)));

    let text = format!(
        "{SMALLEST}[update]\nwindows = [\"at night\", 5]\nconnection = \"lte\"\nmetered = \"no\"\n\
         metered_max = \"much\"\nstart_jitter = \"8d\"\nfetch_in_windows = 1\nwindow = []\n"
    );
    let told = faults(&text);
    for (line, words) in [
        (4, "update.windows: \"at night\": is no span of time; write it like"),
        (4, "update.windows: expected text, found a whole number"),
        (5, "update.connection: \"lte\" is not known; use \"auto\" or \"metered\" or \"unmetered\""),
        (6, "update.metered: \"no\" is not known; use \"never\" or \"small\" or \"always\""),
        (7, "update.metered_max: "),
        (8, "update.start_jitter: \"8d\" is out of range"),
        (9, "update.fetch_in_windows: expected true or false"),
        (10, "update.window: unknown key; did you mean windows?"),
    ] {
        let found = told.iter().any(|fault| fault.starts_with(&format!("agent.toml:{line}: {words}")));
        assert!(found, "{words} in {told:?}");
    }
    assert_eq!(told.len(), 8, "{told:?}");
    let told = faults(&format!("{SMALLEST}[update]\nfetch_in_windows = true\n"));
    assert!(told.len() == 1 && told[0].contains("there are no windows"), "{told:?}");
}
