//! `edgewarden fleet list`: what the broker has kept of every device.

use super::access::AccessArgs;
use super::table::{self, Wanted};
use super::{GOODBYE, MOST_DEVICES, now_ms, overview, print_json, take, tell_how_whole};
use crate::cli::exit::Told;
use crate::cli::ui::{self, Json};
use crate::domain::fleet::Fleet;
use crate::mqtt::operator::{Operator, Patience, Whole};
use std::time::Duration;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    wanted: Wanted,
    /// Exit with 1 where a device that is shown is not online or not well, or where there is none
    #[arg(long)]
    check: bool,
    /// Seconds to wait at most for what the broker has kept
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    wait: u64,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let operator = args.access.ready()?.connect().await?;
    let mut fleet = Fleet::new(MOST_DEVICES);
    let patience = Patience { most: Duration::from_secs(args.wait), ..Patience::default() };
    let whole = read(&operator, &mut fleet, patience).await?;
    let rows = args.wanted.rows(&fleet, now_ms());
    if args.json.json {
        rows.iter().try_for_each(print_json)?;
    } else {
        let mut text: String = table::lines(&rows, false).iter().map(|line| line.clone() + "\n").collect();
        if rows.is_empty() {
            text.clear();
        }
        ui::print(&text)?;
        anstream::eprintln!("{}", table::summary(&rows));
    }
    notices(&operator, &fleet, whole);
    operator.close(GOODBYE).await;
    let well = !rows.is_empty() && rows.iter().all(|row| row.is_well());
    if args.check && !(well && whole == Whole::Yes) {
        return Err(Told.into());
    }
    Ok(())
}

/// Reads what the broker has kept of all devices.
pub(super) async fn read(
    operator: &Operator,
    fleet: &mut Fleet,
    patience: Patience,
) -> anyhow::Result<Whole> {
    let topics = operator.topics().clone();
    let filters = overview(&topics);
    let whole =
        operator.read_retained(filters, patience, &mut |message| take(fleet, &topics, &message)).await?;
    Ok(whole)
}

/// Says on standard error what a reader of the table must know.
fn notices(operator: &Operator, fleet: &Fleet, whole: Whole) {
    tell_how_whole(whole, fleet, "; raise --wait");
    if fleet.beyond() > 0 {
        anstream::eprintln!(
            "edgewarden: there are more than {MOST_DEVICES} devices; the others are not shown"
        );
    }
    if operator.dropped() > 0 {
        anstream::eprintln!(
            "edgewarden: {} messages found no room before they were read, and are missing",
            operator.dropped()
        );
    }
    // Each of our devices presents itself before it says anything else.
    let faceless = fleet.devices().values().filter(|view| view.birth.is_none()).count();
    if faceless > 0 && whole != Whole::Dropped {
        anstream::eprintln!(
            "edgewarden: {faceless} of {} without a birth message; where there are many, the broker drops what it has \
             kept: for mosquitto, raise max_queued_messages",
            ui::count(fleet.devices().len(), "device")
        );
    }
}
