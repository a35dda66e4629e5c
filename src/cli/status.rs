//! What `edgewarden status` shows: the device in a few lines, its pipelines as a table, and what
//! wants attention.

use super::ui;
use crate::domain::deployment::{DeploymentState, SlotState};
use crate::domain::health::{HealthState, PipelineHealth, PipelineState, SourceState};
use crate::domain::manifest::Provider;
use crate::domain::metrics::{MetricsReport, PipelineMetrics};
use crate::domain::runtime::ProviderShare;
use crate::domain::shadow;
use crate::domain::status::DeviceStatus;
use anyhow::Context;
use std::fmt::Write;
use std::time::Duration;

/// The agent's answer as text for people.
pub fn text(answer: serde_json::Value) -> anyhow::Result<String> {
    // As text once more: reading it out of a `Value` would take the code of all its parts a second time.
    let answer = serde_json::to_vec(&answer).context("write the agent's answer")?;
    let status: DeviceStatus = serde_json::from_slice(&answer)
        .context("the agent answers in the words of another version; restart it after an upgrade")?;
    let health = &status.health;
    let mut text = String::new();
    let state = match health.state {
        HealthState::Ok => ui::styled(ui::GOOD, "ok"),
        HealthState::Degraded => ui::styled(ui::WARN, "degraded"),
        HealthState::Failed => ui::styled(ui::BAD, "failed"),
    };
    writeln!(
        text,
        "{}  {state}  edgewarden {}, up {}",
        health.device,
        health.agent_version,
        ui::span(Duration::from_secs(health.uptime_s))
    )?;
    writeln!(text, "broker {}, repository {}", link(&health.mqtt), link(&health.repository))?;
    writeln!(text, "{}", board(&status.metrics))?;

    let head =
        ["PIPELINE", "STATE", "MODEL", "PROVIDER", "FPS", "P50/P95/P99 MS", "SKIPPED", "FAILED", "MEMORY"];
    let mut table = ui::table(&head);
    for pipeline in &health.pipelines {
        let figures = status.metrics.pipelines.iter().find(|figures| figures.name == pipeline.name);
        table.add_row(row(pipeline, figures, &status.metrics));
    }
    if !health.pipelines.is_empty() {
        text.push('\n');
        text.push_str(&ui::render(&table));
    }

    for pipeline in health.pipelines.iter().filter(|pipeline| pipeline.state == PipelineState::Paused) {
        let since = ui::span(Duration::from_secs(pipeline.source.for_s));
        let told =
            format!("{0}: paused by hand for {since}; `edgewarden resume {0}` lets it go on", pipeline.name);
        writeln!(text, "\n{}", ui::styled(ui::WARN, &told))?;
    }

    let deployments: Vec<_> =
        status.slots.iter().filter_map(|slot| Some((slot, slot.deployment.as_ref()?))).collect();
    if !deployments.is_empty() {
        text.push_str("\nDeployments\n");
        for (slot, deployment) in deployments {
            writeln!(text, "  {}", deployment_line(slot, deployment))?;
        }
    }
    if !health.problems.is_empty() {
        text.push_str("\nWants attention\n");
        for problem in &health.problems {
            writeln!(text, "  {}", ui::styled(ui::WARN, &problem.detail))?;
        }
    }
    Ok(text)
}

fn link(link: &crate::domain::health::LinkHealth) -> String {
    match (&link.target, link.reached, &link.last_error) {
        (None, _, _) => "not configured".into(),
        (Some(target), true, _) => format!("{target} {}", ui::styled(ui::GOOD, "reached")),
        (Some(target), false, None) => format!("{target} not tried yet"),
        (Some(target), false, Some(_)) => format!("{target} {}", ui::styled(ui::WARN, "not reached")),
    }
}

fn board(metrics: &MetricsReport) -> String {
    let board = &metrics.board;
    let mut parts = Vec::new();
    if let (Some(total), Some(available)) = (board.memory_total_bytes, board.memory_available_bytes) {
        parts.push(format!("memory {} free of {}", ui::size(available), ui::size(total)));
    }
    if let (Some(total), Some(free)) = (board.disk_total_bytes, board.disk_free_bytes) {
        parts.push(format!("disk {} free of {}", ui::size(free), ui::size(total)));
    }
    if let Some(hottest) = board.temperature_celsius.values().copied().reduce(f64::max) {
        parts.push(format!("{hottest:.0} °C"));
    }
    let cpu: f64 = metrics.processes.iter().filter_map(|process| process.cpu).sum();
    if metrics.processes.iter().any(|process| process.cpu.is_some()) {
        parts.push(format!("{:.0} % of a core", cpu * 100.0));
    }
    if board.throttled.is_some_and(|throttled| throttled.now()) {
        parts.push(ui::styled(ui::WARN, "throttled"));
    }
    parts.join(", ")
}

fn row(pipeline: &PipelineHealth, figures: Option<&PipelineMetrics>, metrics: &MetricsReport) -> Vec<String> {
    let state = match pipeline.state {
        PipelineState::NoModel => "no model",
        PipelineState::Starting => "starting",
        PipelineState::Running if pipeline.source.state == SourceState::Still => "still",
        PipelineState::Running => "running",
        PipelineState::SourceFailed => "source failed",
        PipelineState::ModelFailed => "model failed",
        PipelineState::Ended => "ended",
        PipelineState::Paused => "paused by hand",
        PipelineState::SafeMode => "safe mode",
    };
    let dash = || "-".to_owned();
    let total = figures.and_then(|figures| figures.latency_ms.get("total")).filter(|total| total.count > 0);
    // Its own children; the agent is shared by all.
    let own = |role: &str| role.rsplit_once(':').is_some_and(|(_, name)| name == pipeline.name.as_str());
    let memory: u64 = metrics
        .processes
        .iter()
        .filter(|process| own(&process.role))
        .map(|process| process.pss_bytes.unwrap_or(process.rss_bytes))
        .sum();
    vec![
        pipeline.name.to_string(),
        state.to_owned(),
        pipeline.release.as_ref().map_or_else(dash, ToString::to_string),
        pipeline.provider.map_or_else(dash, |provider| providers(provider, &pipeline.shares)),
        format!("{:.1}", pipeline.fps),
        total.map_or_else(dash, |total| format!("{:.1} / {:.1} / {:.1}", total.p50, total.p95, total.p99)),
        figures.map_or_else(dash, |figures| figures.frames.skipped.to_string()),
        figures.map_or_else(dash, |figures| figures.frames.failed.to_string()),
        if memory == 0 { dash() } else { ui::size(memory) },
    ]
}

/// The provider, with its share of the time where it does not run all of the model.
fn providers(provider: Provider, shares: &[ProviderShare]) -> String {
    let name = provider.as_str();
    match shares.iter().find(|share| share.provider == name) {
        Some(share) if shares.len() > 1 => format!("{name} {:.0} %", share.time * 100.0),
        Some(_) | None => name.to_owned(),
    }
}

fn deployment_line(slot: &SlotState, deployment: &DeploymentState) -> String {
    // The stage as it stands in payloads, in words.
    let stage = serde_json::to_value(deployment.stage).ok();
    let stage = stage.as_ref().and_then(|stage| stage.as_str()).unwrap_or_default().replace('_', " ");
    let mut line = format!("{}: {} {stage}", slot.slot, deployment.release);
    if let Some(progress) = deployment.progress.filter(|_| !deployment.stage.is_final()) {
        let _ = write!(line, " {:.0} %", progress * 100.0);
    }
    if let Some(reason) = &deployment.reason {
        let _ = write!(line, ": {reason}");
    }
    if let Some(cause) = &deployment.cause {
        let _ = write!(line, " by the agent itself: {cause}");
    }
    if let Some(waiting) = &deployment.waiting {
        let _ = write!(
            line,
            ", {}; `edgewarden update {} {} --now` does not wait",
            waiting.told(),
            slot.slot,
            deployment.release
        );
    }
    if let Some(transfer) = deployment.transfer.as_ref().filter(|transfer| transfer.saved_bytes > 0) {
        let (moved, saved) = (ui::size(transfer.moved_bytes), ui::size(transfer.saved_bytes));
        let _ = write!(line, "\n    {moved} came over the wire, deltas saved {saved}");
    }
    if let Some(shadow) = &deployment.shadow {
        let _ = write!(line, "\n    {}", shadow_line(shadow));
    }
    line
}

/// What the shadow run found: the candidate beside the model that served.
fn shadow_line(shadow: &shadow::Report) -> String {
    let shadow::Report { frames, needed, agreement, errors, current, candidate, .. } = shadow;
    let memory = |cost: &shadow::Cost| cost.memory_bytes.map_or_else(|| "-".to_owned(), ui::size);
    let mut line = format!(
        "shadow: {frames} of {needed} frames, agreement {agreement:.2}, P50/P95 {:.1} / {:.1} ms (serving {:.1} / {:.1} \
         ms), memory {} (serving {})",
        candidate.p50_ms,
        candidate.p95_ms,
        current.p50_ms,
        current.p95_ms,
        memory(candidate),
        memory(current)
    );
    if let Some(slowdown) = shadow.slowdown {
        let _ = write!(line, ", {slowdown:.2} × the time");
    }
    if *errors > 0 {
        let _ = write!(line, ", {errors} errors");
    }
    line
}
