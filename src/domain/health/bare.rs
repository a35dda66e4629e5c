//! What a device says that is still to be set up: it has nothing to look at.

use super::{Facts, Problem, ProblemCode};

/// The problem of a device without a pipeline, with the next step.
pub(super) fn problem(facts: &Facts) -> Option<Problem> {
    if !facts.pipelines.is_empty() {
        return None;
    }
    let alone = facts.mqtt.target.is_none() && facts.repository.target.is_none();
    let what = if alone {
        "nothing is configured yet: no camera or sensor, no broker, no repository"
    } else {
        "no pipeline is configured, so that there is nothing to look at"
    };
    let remedy = "run `sudo edgewarden setup`, then `sudo systemctl restart edgewarden`";
    Some(Problem::new(ProblemCode::NotConfigured, format!("{what}; {remedy}")))
}

#[cfg(test)]
mod tests {
    use super::super::{HealthState, LinkHealth, judge};
    use super::*;
    use crate::domain::metrics::BoardMetrics;

    #[test]
    fn a_device_without_pipelines_is_degraded_and_says_what_to_do() {
        let link = |target: Option<&str>| LinkHealth {
            target: target.map(str::to_owned),
            reached: true,
            last_error: None,
        };
        for (broker, begins) in
            [(None, "nothing is configured yet"), (Some("mqtt://broker:1883"), "no pipeline is configured")]
        {
            let report = judge(Facts {
                device: "pi-1".parse().unwrap(),
                agent_version: "0.1.0".into(),
                boot_id: "b".into(),
                uptime_s: 1,
                clock_synchronised: Some(false),
                clock: Default::default(),
                pipelines: Vec::new(),
                mqtt: link(broker),
                messages_lost: crate::domain::importance::Dropped::default(),
                repository: link(None),
                board: BoardMetrics::default(),
                disk_reserve: 0,
                others: Vec::new(),
            });
            assert_eq!(report.state, HealthState::Degraded);
            assert_eq!(report.problems[0].code, ProblemCode::NotConfigured, "it comes before the clock");
            let detail = &report.problems[0].detail;
            assert!(detail.starts_with(begins) && detail.contains("edgewarden setup"), "{detail}");
        }
    }
}
