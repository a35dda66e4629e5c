//! The README is true where that can be checked: its commands parse, its topics and messages are ours, its
//! configuration is accepted, the files it names are there.

use crate::support::root;
use clap::{CommandFactory, Parser};
use edgewarden::cli::Cli;
use edgewarden::config::{self, Surroundings};
use edgewarden::domain::deployment::SlotState;
use edgewarden::domain::health::HealthReport;
use edgewarden::domain::metrics::MetricsReport;
use edgewarden::domain::{DeviceId, FrameResult};
use edgewarden::mqtt::commands::{self, Addressee, RawCommand};
use edgewarden::mqtt::payloads::event::{CountsMessage, EventMessage};
use edgewarden::mqtt::payloads::{Birth, CommandReply, DroppedReport, Stamped};
use edgewarden::mqtt::topics::{Audience, Said, Topic, Topics};
use serde::de::DeserializeOwned;

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("README.md")
}

/// The contents of the code fences of a language.
fn fences(text: &str, language: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```") {
            let content: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            if of == language {
                // A command may go on in the next line.
                found.push(content.join("\n").replace("\\\n", " "));
            }
        }
    }
    found
}

/// The words of a command up to a comment or shell operator; `sudo` is left out.
fn words(line: &str) -> Vec<&str> {
    let ends = |word: &&str| !matches!(*word, "#" | "|" | ">" | "&" | "&&" | ";");
    line.split_whitespace().take_while(ends).skip_while(|word| *word == "sudo").collect()
}

#[test]
fn every_command_line_parses() {
    let text = readme();
    let mut seen = 0;
    for line in fences(&text, "sh").iter().flat_map(|fence| fence.lines()) {
        let words = words(line);
        if words.first() == Some(&"edgewarden") {
            seen += 1;
            if let Err(error) = Cli::try_parse_from(&words) {
                panic!("{line}\n{error}");
            }
        }
    }
    assert!(seen >= 10, "only {seen} command lines");
}

/// The first cells of the rows of a table below a heading, without their backticks.
fn first_cells(text: &str, heading: &str) -> Vec<String> {
    let (_, section) = text.split_once(heading).unwrap_or_else(|| panic!("no {heading}"));
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once('`')).map(|(cell, _)| cell.to_owned()).collect()
}

#[test]
fn the_table_of_commands_is_that_of_the_help() {
    let is_placeholder = |word: &&str| word.starts_with(|c: char| c.is_ascii_uppercase());
    let told: Vec<String> = first_cells(&readme(), "## Commands")
        .iter()
        .map(|cell| {
            cell.split_whitespace().take_while(|word| !is_placeholder(word)).collect::<Vec<_>>().join(" ")
        })
        .collect();
    let mut real = Vec::new();
    for command in Cli::command().get_subcommands().filter(|command| !command.is_hide_set()) {
        let below: Vec<_> = command.get_subcommands().map(|sub| sub.get_name()).collect();
        match below.as_slice() {
            [] => real.push(command.get_name().to_owned()),
            below => real.extend(below.iter().map(|sub| format!("{} {sub}", command.get_name()))),
        }
    }
    let sorted = |mut names: Vec<String>| {
        names.sort();
        names
    };
    assert_eq!(sorted(told), sorted(real));
}

#[test]
fn the_table_of_topics_is_complete_and_true() {
    let topics = Topics::new("edgewarden").unwrap();
    let mut told = first_cells(&readme(), "## Topics");
    let device: DeviceId = "d".parse().unwrap();
    let id = "i".parse().unwrap();
    let said = [
        Said::Availability,
        Said::Birth,
        Said::Health,
        Said::SlotState("s".parse().unwrap()),
        Said::Telemetry("p".parse().unwrap()),
        Said::Snapshot("p".parse().unwrap()),
        Said::Event("p".parse().unwrap()),
        Said::Counts("p".parse().unwrap()),
        Said::Dropped,
        Said::Metrics,
        Said::Ack { command: "c".into(), id: "i".parse().unwrap() },
    ];
    let mut real: Vec<String> = said.iter().map(|said| topics.said(&device, said)).collect();
    real.push(topics.command(&Audience::Device(device), "c", &id));
    real.push(topics.command(&Audience::Group("g".parse().unwrap()), "c", &id));
    for topic in &mut told {
        for (placeholder, value) in [
            ("<device>", "d"),
            ("<slot>", "s"),
            ("<pipeline>", "p"),
            ("<command>", "c"),
            ("<id>", "i"),
            ("<group>", "g"),
        ] {
            *topic = topic.replace(placeholder, value);
        }
    }
    told.sort();
    real.sort();
    assert_eq!(told, real);
}

/// Panics unless the text is a stamped message of that kind with no field that we would not write.
fn is<T: DeserializeOwned + serde::Serialize>(topic: &str, payload: &str) {
    let message: Stamped<T> =
        serde_json::from_str(payload).unwrap_or_else(|error| panic!("{topic}: {error}\n{payload}"));
    let ours: serde_json::Value = serde_json::from_str(&message.json().unwrap()).unwrap();
    let told: serde_json::Value = serde_json::from_str(payload).unwrap();
    for key in told.as_object().unwrap().keys() {
        assert!(ours.get(key).is_some(), "{topic}: \"{key}\" is not ours");
    }
}

#[test]
fn every_message_is_one_of_ours() {
    let text = readme();
    let topics = Topics::new("edgewarden").unwrap();
    let to = Addressee { device: "desk-1".parse().unwrap(), groups: vec!["line-3".parse().unwrap()] };
    let mut seen = 0;
    let fences = fences(&text, "text");
    let messages = fences.iter().filter(|fence| fence.starts_with("edgewarden/"));
    for message in messages.flat_map(|fence| fence.split("\n\n")) {
        let (topic, payload) = message.split_once('\n').expect("a topic, and its payload below");
        seen += 1;
        match topics.parse(topic).unwrap_or_else(|| panic!("{topic} is no topic of ours")) {
            Topic::Command { .. } => {
                let raw = RawCommand { topic, payload: payload.as_bytes(), retained: false };
                commands::read(&topics, &to, raw).unwrap_or_else(|refusal| panic!("{topic}: {refusal:?}"));
            }
            Topic::Desired { .. } => panic!("{topic}: nothing reads it yet"),
            Topic::Said { said, .. } => match said {
                Said::Birth => is::<Birth>(topic, payload),
                Said::Health => is::<HealthReport>(topic, payload),
                Said::SlotState(_) => is::<SlotState>(topic, payload),
                Said::Telemetry(_) => is::<FrameResult>(topic, payload),
                Said::Event(_) => is::<EventMessage>(topic, payload),
                Said::Counts(_) => is::<CountsMessage>(topic, payload),
                Said::Metrics => is::<MetricsReport>(topic, payload),
                Said::Dropped => is::<DroppedReport>(topic, payload),
                Said::Ack { .. } => is::<CommandReply>(topic, payload),
                Said::Availability | Said::Snapshot(_) => panic!("{topic} carries no JSON"),
            },
        }
    }
    assert!(seen >= 5, "only {seen} messages");
}

#[test]
fn the_configuration_is_accepted() {
    let text = readme();
    let files = fences(&text, "toml");
    assert!(!files.is_empty());
    for file in files.iter().filter(|file| file.starts_with("# agent.toml")) {
        config::from_text(file, root(), &Surroundings::default())
            .unwrap_or_else(|faults| panic!("{faults}\n{file}"));
    }
}

#[test]
fn the_files_it_links_to_are_there() {
    let text = readme();
    let links: Vec<&str> = text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')'))
        .map(|(link, _)| link)
        .filter(|link| !link.starts_with("http"))
        .collect();
    assert!(links.len() >= 5, "{links:?}");
    for link in links {
        let (file, heading) = link.split_once('#').unwrap_or((link, ""));
        let path = root().join(file);
        assert!(path.is_file(), "{link} is missing");
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let named =
            |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-") == heading;
        assert!(
            heading.is_empty() || text.lines().any(|line| line.starts_with('#') && named(line)),
            "{link}"
        );
    }
}
