//! Which provider runs which share of the model, read from a profile of the first run.

use super::providers::provider_name;
use crate::domain::manifest::Provider;
use crate::domain::runtime::ProviderShare;
use std::collections::{BTreeMap, BTreeSet};

/// The processor runs all of it: nobody else was asked.
pub(super) fn all_cpu() -> Vec<ProviderShare> {
    vec![ProviderShare { provider: Provider::Cpu.as_str().to_owned(), nodes: None, time: 1.0 }]
}

/// The shares in a profile (a JSON array of events), the largest first; empty where it names nobody. A
/// part of the model that a provider runs as one counts as one operator.
pub(super) fn of_profile(profile: &str) -> Vec<ProviderShare> {
    let events: Vec<serde_json::Value> = serde_json::from_slice(profile.as_bytes()).unwrap_or_default();
    let mut seen: BTreeMap<&str, (BTreeSet<&str>, f64)> = BTreeMap::new();
    for event in events.iter().filter(|event| event["cat"] == "Node") {
        let Some(provider) = event["args"]["provider"].as_str().filter(|name| !name.is_empty()) else {
            continue;
        };
        let entry = seen.entry(provider).or_default();
        entry.0.insert(event["name"].as_str().unwrap_or_default());
        entry.1 += event["dur"].as_f64().unwrap_or(0.0);
    }
    let all: f64 = seen.values().map(|(_, time)| time).sum();
    let share = |(provider, (nodes, time)): (&str, (BTreeSet<&str>, f64))| {
        let known = Provider::ALL.into_iter().find(|known| provider_name(*known) == provider);
        ProviderShare {
            provider: known.map_or(provider, |known| known.as_str()).to_owned(),
            nodes: u32::try_from(nodes.len()).ok(),
            time: if all > 0.0 { (time / all) as f32 } else { 0.0 },
        }
    };
    let mut shares: Vec<_> = seen.into_iter().map(share).collect();
    shares.sort_by(|a, b| b.time.total_cmp(&a.time));
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_tells_who_ran_how_much() {
        let profile = r#"[
            {"cat": "Session", "name": "model_run", "dur": 900, "args": {}},
            {"cat": "Node", "name": "a_kernel_time", "dur": 10, "args": {"provider": "CPUExecutionProvider"}},
            {"cat": "Node", "name": "b_kernel_time", "dur": 60, "args": {"provider": "CUDAExecutionProvider"}},
            {"cat": "Node", "name": "b_kernel_time", "dur": 30, "args": {"provider": "CUDAExecutionProvider"}},
            {"cat": "Node", "name": "c_fence_before", "dur": 5, "args": {"op_name": "Conv"}},
            {"cat": "Node", "name": "d_kernel_time", "dur": 0, "args": {"provider": "NewExecutionProvider"}}
        ]"#;
        let shares = of_profile(profile);
        let told: Vec<_> = shares.iter().map(|s| (s.provider.as_str(), s.nodes, s.time)).collect();
        assert_eq!(
            told,
            [("cuda", Some(1), 0.9), ("cpu", Some(1), 0.1), ("NewExecutionProvider", Some(1), 0.0)]
        );
        assert!(of_profile("").is_empty() && of_profile("[]").is_empty());
    }
}
