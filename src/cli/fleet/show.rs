//! `edgewarden fleet show`: all that the broker has kept of one device.

use super::access::AccessArgs;
use super::{GOODBYE, OVERVIEW, millis, now_ms, print_json, table, take};
use crate::cli::ui::{self, Json};
use crate::domain::fleet::row::{Row, SlotDeployment};
use crate::domain::fleet::{Birth, DeviceView, Fleet, Health, Problem};
use crate::domain::{DeviceId, Reason, ReasonCode};
use crate::mqtt::message::Received;
use crate::mqtt::operator::Patience;
use crate::mqtt::topics::{Said, Topic, Topics};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The device
    device: DeviceId,
    /// Without a sign of life for so long it is shown as stale, whatever the broker says
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = super::span)]
    stale: Duration,
    #[command(flatten)]
    json: Json,
    #[command(flatten)]
    access: AccessArgs,
}

/// Runs the command. As JSON it gives the row of `list` and beside it the documents as the device wrote them.
pub(super) async fn run(args: Args) -> anyhow::Result<()> {
    let operator = args.access.ready()?.connect().await?;
    let topics = operator.topics().clone();
    let filters = OVERVIEW.map(|below| topics.of_device(&args.device, below));
    let mut fleet = Fleet::new(1);
    let mut documents = Map::new();
    operator
        .read_retained(filters.into(), Patience::default(), &mut |message| {
            take(&mut fleet, &topics, &message);
            keep(&mut documents, &topics, &message);
        })
        .await?;
    operator.close(GOODBYE).await;
    let Some(view) = fleet.devices().get(&args.device) else {
        let detail =
            format!("{}: the broker knows of no such device; see `edgewarden fleet list`", args.device);
        return Err(Reason::new(ReasonCode::NotFound, detail).into());
    };
    let row = Row::of(&args.device, view, now_ms(), millis(args.stale));
    if args.json.json {
        let mut told = serde_json::to_value(&row)?;
        told["documents"] = Value::Object(documents);
        return print_json(&told);
    }
    ui::print(&text(&row, view)?)
}

/// Keeps a document as it came: `birth`, `health`, `model` by slot. There are at most as many slots as in the view.
fn keep(documents: &mut Map<String, Value>, topics: &Topics, message: &Received) {
    let Some(Topic::Said { said, .. }) = topics.parse(&message.topic) else { return };
    let Ok(document) = serde_json::from_slice::<Value>(&message.payload) else { return };
    match said {
        Said::Birth => drop(documents.insert("birth".to_owned(), document)),
        Said::Health => drop(documents.insert("health".to_owned(), document)),
        Said::SlotState(slot) => {
            let slots = documents.entry("model").or_insert_with(|| json!({}));
            if let Some(slots) = slots.as_object_mut()
                && (slots.len() < crate::domain::fleet::MOST || slots.contains_key(slot.as_str()))
            {
                slots.insert(slot.to_string(), document);
            }
        }
        // No documents of its own.
        _ => {}
    }
}

fn text(row: &Row, view: &DeviceView) -> anyhow::Result<String> {
    let mut text = String::new();
    let presence = ui::styled(table::presence_style(row.presence), row.presence.as_str());
    let state = row.state.as_deref().unwrap_or("-");
    let state = table::state_style(state).map_or_else(|| state.to_owned(), |style| ui::styled(style, state));
    write!(text, "{}  {presence}  {state}", row.device)?;
    if let Some(age) = row.age_s.and_then(|age| u64::try_from(age).ok()) {
        write!(text, "  last heard of {} ago", ui::span(Duration::from_secs(age)))?;
    }
    text.push('\n');
    if let Some(birth) = &view.birth {
        self::birth(&mut text, birth)?;
    }
    if let Some(health) = &view.health {
        self::health(&mut text, health)?;
    }
    if !view.slots.is_empty() {
        text.push_str("\nSlots\n");
        for (slot, known) in &view.slots {
            let current = known.current.as_deref().unwrap_or("none");
            write!(text, "  {slot}: {current}")?;
            if let Some(previous) = &known.previous {
                write!(text, ", before it {previous}")?;
            }
            text.push('\n');
            if let Some(deployment) = &known.deployment {
                let one = SlotDeployment { slot: slot.clone(), deployment: deployment.clone() };
                writeln!(text, "    deployment: {}", table::deployment(&one, true))?;
                if let Some(reason) = &deployment.reason {
                    writeln!(text, "      {}", ui::styled(ui::WARN, told(reason)))?;
                }
            }
            if let Some(reason) = &known.safe_mode {
                writeln!(text, "    {}", ui::styled(ui::BAD, format!("safe mode: {}", told(reason))))?;
            }
        }
    }
    let mut problems: Vec<&Problem> = view.health.iter().flat_map(|health| &health.problems).collect();
    // What is wrong with its messages is known here alone.
    if let Some(own) = row.problem.as_ref().filter(|own| !problems.contains(own)) {
        problems.insert(0, own);
    }
    if !problems.is_empty() {
        text.push_str("\nWants attention\n");
        for problem in problems {
            writeln!(text, "  {}", ui::styled(ui::WARN, told(problem)))?;
        }
    }
    Ok(text)
}

fn told(problem: &Problem) -> String {
    format!("{} ({})", problem.detail, problem.code)
}

fn birth(text: &mut String, birth: &Birth) -> std::fmt::Result {
    let known = [&birth.board, &birth.os, &birth.kernel, &birth.arch];
    let machine: Vec<&str> = known.into_iter().filter_map(Option::as_deref).collect();
    writeln!(text, "edgewarden {} on {}", birth.agent_version.as_deref().unwrap_or("?"), machine.join(", "))?;
    let groups = if birth.groups.is_empty() { "none".to_owned() } else { birth.groups.join(", ") };
    writeln!(text, "groups: {groups}")?;
    writeln!(text, "commands: {}", birth.commands.join(", "))?;
    if birth.commands_unsigned == Some(true) {
        let word =
            "takes commands without a signature: the broker's access list alone decides who commands it";
        writeln!(text, "{}", ui::styled(ui::WARN, word))?;
    }
    Ok(())
}

fn health(text: &mut String, health: &Health) -> std::fmt::Result {
    let mut parts = Vec::new();
    parts.extend(health.uptime_s.map(|up| format!("up {}", ui::span(Duration::from_secs(up)))));
    parts.extend(health.temperature.map(|heat| format!("{heat:.0} °C")));
    parts.extend(health.memory_available.map(|bytes| format!("{} of memory free", ui::size(bytes))));
    parts.extend(health.disk_free.map(|bytes| format!("{} of disk free", ui::size(bytes))));
    if health.clock_synchronised == Some(false) {
        parts.push(ui::styled(ui::WARN, "clock not set"));
    }
    if !parts.is_empty() {
        writeln!(text, "{}", parts.join(", "))?;
    }
    for (what, target, reached) in &health.links {
        let word =
            if *reached { ui::styled(ui::GOOD, "reached") } else { ui::styled(ui::WARN, "not reached") };
        writeln!(text, "{what} {target} {word}")?;
    }
    if !health.pipelines.is_empty() {
        let mut table = ui::table(&["PIPELINE", "STATE", "MODEL", "PROVIDER", "FPS"]);
        let dash = |known: &Option<String>| known.clone().unwrap_or_else(|| "-".to_owned());
        for pipeline in &health.pipelines {
            table.add_row([
                pipeline.name.clone(),
                dash(&pipeline.state).replace('_', " "),
                dash(&pipeline.release),
                dash(&pipeline.provider),
                pipeline.fps.map_or_else(|| "-".to_owned(), |fps| format!("{fps:.1}")),
            ]);
        }
        text.push('\n');
        text.push_str(&ui::render(&table));
    }
    Ok(())
}
