//! What a change does, in words: what a signer reads before signing.

use super::super::authority::{self, Authority, TOP_LEVEL};
use super::super::operators::TARGET as OPERATORS;
use super::super::public_key::{PublicKey, short};
use super::super::roles;
use super::super::state::{digest_of, releases};
use super::change::{Change, ONLINE};
use crate::bundle::layout;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

impl Change {
    /// What it does, a line for each thing.
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
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
        lines
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
            lines.push(format!("{role}: {} becomes {value}", name.escape_debug()));
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
    let id = |(named, key): (&String, &Value)| match PublicKey::of_value(key) {
        Some(key) => key.id().to_owned(),
        None => format!("{named} of a kind that counts for nothing here"),
    };
    let ids = |authority: Option<&Authority>| -> BTreeSet<String> {
        authority.into_iter().flat_map(|authority| authority.keys.iter().map(id)).collect()
    };
    let (old, new) = (ids(before), ids(after));
    for id in new.difference(&old) {
        lines.push(format!("{role}: key {} may sign", short(id)));
    }
    for id in old.difference(&new) {
        lines.push(format!("{role}: key {} may no longer sign", short(id)));
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
    let named = |list: Option<&Value>| -> BTreeMap<String, Value> {
        let all = list.into_iter().flat_map(authority::delegations);
        all.filter_map(|one| Some((authority::name_of(one)?.to_owned(), one.clone()))).collect()
    };
    let (old, new) = (named(before), named(Some(after)));
    for (name, entry) in &new {
        if old.get(name) == Some(entry) {
            continue;
        }
        let paths = entry["paths"].as_array().into_iter().flatten().filter_map(Value::as_str);
        let mut paths: Vec<&str> = paths.collect();
        if entry.get("path_hash_prefixes").is_some() {
            paths.push("names whose hashes begin in certain ways");
        }
        let ends = if entry["terminating"] == true { ", and nobody after it" } else { "" };
        lines.push(format!("{of}lets {name} publish {}{ends}", paths.join(", ")));
        let keys_of = |list: Option<&Value>| Authority::of_delegation(list?, name);
        who(lines, name, keys_of(before).as_ref(), keys_of(Some(after)).as_ref());
    }
    for name in old.keys().filter(|name| !new.contains_key(*name)) {
        lines.push(format!("{of}takes all away from {name}"));
    }
}
