//! What a change does, in words: what a signer reads before signing.

use super::super::authority::{self, Authority, TOP_LEVEL};
use super::super::operators::TARGET as OPERATORS;
use super::super::public_key::PublicKey;
use super::super::state::{digest_of, releases};
use super::super::{pin, roles};
use super::change::{Change, ONLINE};
use crate::bundle::layout;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl Change {
    /// What it does, a line for each thing; what is in it cannot act on a terminal.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        if self.is_founding() {
            lines.push("begins a new repository; if yours exists already, do not sign this".to_owned());
        }
        if let Some(root) = self.payload("root") {
            keys(&mut lines, self.published("root"), root);
            others(&mut lines, "root", self.published("root"), root);
            valid(&mut lines, "root", root);
        }
        for role in self.roles().filter(|role| *role != "root" && !ONLINE.contains(role)) {
            let Some(list) = self.payload(role) else { continue };
            let of = if role == "targets" { String::new() } else { format!("{role}: ") };
            offers(&mut lines, &of, self.published(role), list);
            delegations(&mut lines, &of, self.published(role), list);
            others(&mut lines, role, self.published(role), list);
            valid(&mut lines, role, list);
        }
        for role in ONLINE {
            let Some(payload) = self.payload(role) else { continue };
            others(&mut lines, role, self.published(role), payload);
            valid(&mut lines, role, payload);
        }
        lines.iter().map(|line| pin::plain(line)).collect()
    }
}

fn valid(lines: &mut Vec<String>, role: &str, payload: &Value) {
    let until = roles::expiry_of(payload).map(|time| time.strftime("%Y-%m-%d").to_string());
    lines.push(format!(
        "{role} becomes version {}, good until {}",
        roles::version(payload),
        until.unwrap_or_default()
    ));
}

/// Fields that nothing else here tells of.
fn others(lines: &mut Vec<String>, role: &str, before: Option<&Value>, after: &Value) {
    const TOLD: [&str; 7] = ["version", "expires", "keys", "roles", "targets", "delegations", "meta"];
    let Some(before) = before else { return };
    let fields = |payload: &Value| -> BTreeMap<String, Value> {
        payload.as_object().into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())).collect()
    };
    let (old, new) = (fields(before), fields(after));
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    for name in names.into_iter().filter(|name| !TOLD.contains(&name.as_str())) {
        if old.get(name) != new.get(name) {
            let value = new.get(name).map_or_else(|| "nothing".to_owned(), Value::to_string);
            lines.push(format!("{role}: {name} becomes {value}"));
        }
    }
}

fn keys(lines: &mut Vec<String>, before: Option<&Value>, after: &Value) {
    for role in TOP_LEVEL {
        let of = |root: &Value| Authority::of_root(root, role).ok();
        who(lines, role, before.and_then(of).as_ref(), of(after).as_ref());
    }
}

fn who(lines: &mut Vec<String>, role: &str, before: Option<&Authority>, after: Option<&Authority>) {
    // By what the keys are, not by the ids that they are given.
    let id = |key: &Value| {
        let id = pin::computed_id(key);
        if PublicKey::of_value(key).is_some() { id } else { format!("{id} (of a kind unknown here)") }
    };
    let ids = |authority: Option<&Authority>| -> BTreeSet<String> {
        authority.into_iter().flat_map(|authority| authority.keys.values().map(id)).collect()
    };
    let (old, new) = (ids(before), ids(after));
    for id in new.difference(&old) {
        lines.push(format!("{role}: key {id} may sign"));
    }
    for id in old.difference(&new) {
        lines.push(format!("{role}: key {id} may no longer sign"));
    }
    let threshold = |authority: Option<&Authority>| authority.map_or(0, |authority| authority.threshold);
    if threshold(before) != threshold(after) || old.len() != new.len() {
        let was = match before {
            Some(before) => format!(" (was {} of {})", before.threshold, old.len()),
            None => String::new(),
        };
        lines.push(format!("{role}: needs {} of {} keys{was}", threshold(after), new.len()));
    }
}

fn offers(lines: &mut Vec<String>, of: &str, before: Option<&Value>, after: &Value) {
    let entries = |list: Option<&Value>| -> BTreeMap<String, Value> {
        let targets = list.and_then(|list| list.get("targets")?.as_object());
        targets.into_iter().flatten().map(|(path, entry)| (path.clone(), entry.clone())).collect()
    };
    let (old, new) = (entries(before), entries(Some(after)));
    let named: BTreeMap<String, String> = [before, Some(after)]
        .into_iter()
        .flatten()
        .flat_map(releases)
        .map(|(release, _)| (layout::target(&release), release.to_string()))
        .collect();
    let name = |path: &String| match path.as_str() {
        OPERATORS => "the list of those who may command the devices".to_owned(),
        _ => named.get(path).cloned().unwrap_or_else(|| format!("target {path}")),
    };
    let digest =
        |entry: &Value| digest_of(entry).map_or_else(|| "none".to_owned(), |digest| digest.to_string());
    for (path, entry) in &new {
        match old.get(path) {
            None => lines.push(format!("{of}adds {}, SHA-256 {}", name(path), digest(entry))),
            Some(old) if old != entry => {
                lines.push(format!("{of}changes {}, SHA-256 {}", name(path), digest(entry)));
            }
            Some(_) => {}
        }
    }
    for path in old.keys().filter(|path| !new.contains_key(*path)) {
        lines.push(format!("{of}takes off {}", name(path)));
    }
}

fn delegations(lines: &mut Vec<String>, of: &str, before: Option<&Value>, after: &Value) {
    let entry_of = |list: Option<&Value>, name: &str| {
        authority::delegations(list?).find(|one| authority::name_of(one) == Some(name)).cloned()
    };
    let keys_of = |list: Option<&Value>, name: &str| Authority::of_delegation(list?, name);
    let (old, new) = (names(before), names(Some(after)));
    for name in &new {
        let entry = entry_of(Some(after), name).unwrap_or_default();
        let (had, has) = (keys_of(before, name), keys_of(Some(after), name));
        // The keys stand beside the entries, which only name them.
        if entry_of(before, name).as_ref() == Some(&entry) && had == has {
            continue;
        }
        let paths = entry["paths"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut paths: Vec<&str> = paths.collect();
        if entry.get("path_hash_prefixes").is_some() {
            paths.push("names whose hashes begin in certain ways");
        }
        let ends = if entry["terminating"] == true { ", and nobody after it" } else { "" };
        lines.push(format!("{of}lets {name} publish {}{ends}", paths.join(", ")));
        who(lines, name, had.as_ref(), has.as_ref());
    }
    for name in old.iter().filter(|name| !new.contains(name)) {
        lines.push(format!("{of}takes all away from {name}"));
    }
    // Of two that have the same release the first one counts.
    let stay = old.iter().filter(|name| new.contains(name));
    let come = new.iter().filter(|name| !old.contains(name));
    if !stay.chain(come).eq(new.iter()) {
        lines.push(format!("{of}asks in this order: {}", new.join(", ")));
    }
    let field = |list: Option<&Value>, name: &str| list?.get("delegations")?.get(name).cloned();
    let fields = |list: Option<&Value>| -> Vec<String> {
        let all = list.and_then(|list| list.get("delegations")?.as_object());
        all.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    };
    let all: BTreeSet<String> = fields(before).into_iter().chain(fields(Some(after))).collect();
    for name in all.iter().filter(|name| !matches!(name.as_str(), "keys" | "roles")) {
        let (was, is) = (field(before, name), field(Some(after), name));
        if was != is {
            let value = is.map_or_else(|| "nothing".to_owned(), |value| value.to_string());
            lines.push(format!("{of}delegations: {name} becomes {value}"));
        }
    }
}

/// The delegations of a list in their order.
fn names(list: Option<&Value>) -> Vec<String> {
    let all = list.into_iter().flat_map(authority::delegations);
    all.filter_map(|one| authority::name_of(one).map(str::to_owned)).collect()
}
