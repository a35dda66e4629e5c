//! The figures as text for Prometheus (the OpenMetrics 1.0 format, which Prometheus asks for).
//!
//! Names follow its conventions: base units, `_total` for counters, one unit a metric.

use crate::domain::event;
use crate::domain::health::SourceState;
use crate::domain::importance::Importance;
use crate::domain::metrics::MetricsReport;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use std::sync::atomic::AtomicU64;

/// The `Content-Type` of what [`render`] writes.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

type Labels = Vec<(&'static str, String)>;
type Count = Family<Labels, Counter>;
type Seconds = Family<Labels, Counter<f64, AtomicU64>>;
type Level = Family<Labels, Gauge<f64, AtomicU64>>;

/// Writes a report as OpenMetrics text.
pub fn render(report: &MetricsReport) -> String {
    let mut page = Page(Registry::with_prefix("edgewarden"));
    page.level("uptime", "Time since the agent started", Some(Unit::Seconds), [(vec![], report.uptime_s)]);
    pipelines(&mut page, report);
    processes(&mut page, report);
    board(&mut page, report);
    mqtt(&mut page, report);
    let mut text = String::new();
    // Writing into a string does not fail.
    let _ = encode(&mut text, &page.0);
    text
}

/// Metrics of one report; every value is set once.
struct Page(Registry);

impl Page {
    fn count(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, u64)>) {
        let family = Count::default();
        for (labels, value) in values {
            family.get_or_create(&labels).inc_by(value);
        }
        self.0.register(name, help, family);
    }

    fn level(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<Unit>,
        values: impl IntoIterator<Item = (Labels, f64)>,
    ) {
        let family = Level::default();
        let mut any = false;
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
            any = true;
        }
        match unit {
            // A metric that this board does not have is not named at all.
            _ if !any => {}
            Some(unit) => self.0.register_with_unit(name, help, unit, family),
            None => self.0.register(name, help, family),
        }
    }
}

fn pipelines(page: &mut Page, report: &MetricsReport) {
    let label = |name: &dyn ToString| ("pipeline", name.to_string());
    let all = &report.pipelines;
    page.count(
        "frames_captured",
        "Frames that the source published",
        all.iter().map(|p| (vec![label(&p.name)], p.frames.captured)),
    );
    page.count(
        "frames",
        "Frames by what became of them",
        all.iter().flat_map(|p| {
            let f = p.frames;
            [
                ("answered", f.answered),
                ("skipped", f.skipped),
                ("unserved", f.unserved),
                ("stale", f.stale),
                ("paced", f.paced),
                ("failed", f.failed),
            ]
            .map(|(outcome, n)| (vec![label(&p.name), ("outcome", outcome.to_owned())], n))
        }),
    );
    page.count(
        "pictures_still",
        "Pictures that were held back because nothing moved in them",
        all.iter().map(|p| (vec![label(&p.name)], p.frames.still)),
    );
    page.level(
        "source_state",
        "1 for the state that the source is in",
        None,
        all.iter().flat_map(|p| {
            SourceState::ALL.map(|state| {
                let labels = vec![label(&p.name), ("state", state.as_str().to_owned())];
                (labels, f64::from(u8::from(p.source == state)))
            })
        }),
    );
    page.count(
        "source_restarts",
        "Times that the source was lost and started again",
        all.iter().map(|p| (vec![label(&p.name)], p.source_restarts)),
    );
    page.level(
        "frames_per_second",
        "Answered frames per second over the sliding window",
        None,
        all.iter().map(|p| (vec![label(&p.name)], p.fps)),
    );
    let events = |count: fn(&event::Count) -> u64| {
        all.iter().flat_map(move |p| {
            p.events.iter().map(move |(class, of)| {
                (vec![("pipeline", p.name.to_string()), ("class", class.clone())], count(of))
            })
        })
    };
    if all.iter().any(|p| !p.events.is_empty()) {
        page.count("events", "Events that began, by class", events(|of| of.begun));
        let active = events(|of| of.active).map(|(labels, active)| (labels, active as f64));
        page.level("events_active", "Events that go on now, by class", None, active);
    }
    page.level(
        "provider_share",
        "Share of the model's time by execution provider, in its first run",
        None,
        all.iter().flat_map(|p| {
            let share = |(provider, share): (&String, &f64)| {
                (vec![label(&p.name), ("provider", provider.clone())], *share)
            };
            p.provider_share.iter().map(share)
        }),
    );
    page.level(
        "latency",
        "Time per frame by stage over the sliding window",
        Some(Unit::Seconds),
        all.iter().flat_map(|p| {
            p.latency_ms.iter().filter(|(_, q)| q.count > 0).flat_map(|(stage, q)| {
                [("0.5", q.p50), ("0.95", q.p95), ("0.99", q.p99), ("1", q.max)].map(|(quantile, ms)| {
                    let labels =
                        vec![label(&p.name), ("stage", stage.clone()), ("quantile", quantile.to_owned())];
                    (labels, ms / 1000.0)
                })
            })
        }),
    );
    page.count("swaps", "Models swapped in", [(vec![], report.swaps)]);
    page.count(
        "deployments",
        "Ended deployments by outcome",
        report.deployments.iter().map(|(outcome, n)| (vec![("outcome", outcome.clone())], *n)),
    );
    let transfers = &report.transfers;
    page.count(
        "update_bytes",
        "Bytes of updates that came over the wire, and that did not have to",
        [("moved", transfers.moved_bytes), ("saved", transfers.saved_bytes)]
            .map(|(what, bytes)| (vec![("what", what.to_owned())], bytes)),
    );
    let failed = [("failed".to_owned(), u64::from(transfers.failed))];
    let came = transfers.deltas.iter().map(|(method, n)| (method.as_str().to_owned(), u64::from(*n)));
    page.count(
        "update_deltas",
        "Files that came as deltas by method, and deltas that led to nothing",
        came.chain(failed).map(|(method, n)| (vec![("method", method)], n)),
    );
    page.count(
        "child_restarts",
        "Child processes started again",
        report.child_restarts.iter().map(|(role, n)| (vec![("role", role.clone())], *n)),
    );
    page.count(
        "recycles",
        "Models replaced by a fresh process because their memory had grown",
        report.recycles.iter().map(|(name, n)| (vec![label(name)], *n)),
    );
}

fn processes(page: &mut Page, report: &MetricsReport) {
    let all = &report.processes;
    let label = |role: &String| vec![("process", role.clone())];
    page.level(
        "process_resident_memory",
        "Resident memory",
        Some(Unit::Bytes),
        all.iter().map(|p| (label(&p.role), p.rss_bytes as f64)),
    );
    page.level(
        "process_proportional_memory",
        "Memory with shared pages counted by share",
        Some(Unit::Bytes),
        all.iter().filter_map(|p| Some((label(&p.role), p.pss_bytes? as f64))),
    );
    let cpu = Seconds::default();
    for process in all {
        cpu.get_or_create(&label(&process.role)).inc_by(process.cpu_seconds);
    }
    page.0.register_with_unit("process_cpu", "Processor time", Unit::Seconds, cpu);
}

fn board(page: &mut Page, report: &MetricsReport) {
    let board = &report.board;
    let one = |value: Option<f64>| value.map(|value| (vec![], value));
    let bytes = |value: Option<u64>| value.map(|value| (vec![], value as f64));
    page.level("load1", "Load average of a minute", None, one(board.load1));
    page.level("memory_total", "Memory", Some(Unit::Bytes), bytes(board.memory_total_bytes));
    page.level(
        "memory_available",
        "Memory to be had",
        Some(Unit::Bytes),
        bytes(board.memory_available_bytes),
    );
    page.level("disk_total", "Disk of the state folder", Some(Unit::Bytes), bytes(board.disk_total_bytes));
    page.level("disk_free", "Free disk of the state folder", Some(Unit::Bytes), bytes(board.disk_free_bytes));
    page.level(
        "temperature",
        "Temperature by thermal zone",
        Some(Unit::Celsius),
        board.temperature_celsius.iter().map(|(zone, value)| (vec![("zone", zone.clone())], *value)),
    );
    page.level(
        "throttled",
        "1 while the board holds the processor back",
        None,
        board.throttled.iter().flat_map(|t| {
            [
                ("under_voltage", t.under_voltage),
                ("frequency_capped", t.frequency_capped),
                ("throttled", t.throttled),
                ("soft_temperature_limit", t.soft_temperature_limit),
            ]
            .map(|(cause, on)| (vec![("cause", cause.to_owned())], f64::from(u8::from(on))))
        }),
    );
    page.level(
        "gpu_load",
        "Load of the graphics processor",
        Some(Unit::Other("ratio".to_owned())),
        one(board.gpu_load),
    );
    page.level(
        "power_watts",
        "Power by rail",
        None,
        board.power_watts.iter().map(|(rail, value)| (vec![("rail", rail.clone())], *value)),
    );
}

fn mqtt(page: &mut Page, report: &MetricsReport) {
    let mqtt = &report.mqtt;
    let connected = f64::from(u8::from(mqtt.connected));
    page.level("mqtt_connected", "1 while the broker is reached", None, [(vec![], connected)]);
    page.count("mqtt_connects", "Connections made to the broker", [(vec![], mqtt.connects)]);
    page.count("mqtt_published", "Messages that the broker acknowledged", [(vec![], mqtt.published)]);
    let refused = [(vec![], mqtt.commands_refused)];
    page.count("mqtt_commands_refused", "Commands from the broker that were refused", refused);
    page.count(
        "commands_refused",
        "Commands from the broker that were refused, by the reason",
        report.refusals.iter().map(|(kind, n)| (vec![("reason", kind.clone())], *n)),
    );
    page.count(
        "mqtt_dropped",
        "Messages that did not reach the broker",
        [("spool", mqtt.spool_dropped), ("live", mqtt.live_dropped)]
            .map(|(kind, n)| (vec![("kind", kind.to_owned())], n)),
    );
    let by_class =
        Importance::ALL.map(|class| (vec![("class", class.as_str().to_owned())], mqtt.dropped.of(class)));
    page.count("mqtt_lost", "Messages that had to arrive and were dropped", by_class);
    page.level("mqtt_spool_messages", "Messages that wait", None, [(vec![], mqtt.spool_len as f64)]);
    page.level("mqtt_spool", "Their size", Some(Unit::Bytes), [(vec![], mqtt.spool_bytes as f64)]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::delta::{Method, Transfer};
    use crate::domain::metrics::{
        BoardMetrics, FrameCounts, PipelineMetrics, ProcessMetrics, Quantiles, Throttling,
    };
    use std::collections::BTreeMap;

    fn report() -> MetricsReport {
        let quantiles = Quantiles { p50: 20.0, p95: 30.0, p99: 40.0, max: 50.0, count: 9 };
        MetricsReport {
            uptime_s: 12.5,
            pipelines: vec![PipelineMetrics {
                name: "belt".parse().unwrap(),
                frames: FrameCounts {
                    captured: 10,
                    answered: 6,
                    skipped: 3,
                    stale: 4,
                    failed: 1,
                    still: 8,
                    ..FrameCounts::default()
                },
                events: [("nut \"M8\"".to_owned(), event::Count { begun: 5, active: 2 })].into(),
                source: SourceState::Lost,
                source_restarts: 3,
                fps: 14.5,
                provider_share: BTreeMap::from([("cpu".to_owned(), 1.0)]),
                latency_ms: BTreeMap::from([
                    ("infer".to_owned(), quantiles),
                    ("decode".to_owned(), Quantiles::default()),
                ]),
            }],
            swaps: 2,
            deployments: BTreeMap::from([("committed".to_owned(), 2)]),
            transfers: Transfer {
                moved_bytes: 70,
                saved_bytes: 30,
                deltas: BTreeMap::from([(Method::Planes, 3)]),
                failed: 1,
            },
            child_restarts: BTreeMap::from([("infer".to_owned(), 1)]),
            processes: vec![ProcessMetrics {
                role: "agent".into(),
                pid: 7,
                rss_bytes: 4096,
                pss_bytes: None,
                cpu: None,
                cpu_seconds: 1.25,
            }],
            board: BoardMetrics {
                temperature_celsius: BTreeMap::from([("cpu \"0\"\n".to_owned(), 61.5)]),
                throttled: Some(Throttling::from_bits(1)),
                ..BoardMetrics::default()
            },
            ..MetricsReport::default()
        }
    }

    #[test]
    fn every_figure_has_its_line() {
        let text = render(&report());
        for line in [
            "edgewarden_uptime_seconds{} 12.5",
            r#"edgewarden_frames_captured_total{pipeline="belt"} 10"#,
            r#"edgewarden_frames_total{pipeline="belt",outcome="answered"} 6"#,
            r#"edgewarden_frames_total{pipeline="belt",outcome="skipped"} 3"#,
            r#"edgewarden_frames_total{pipeline="belt",outcome="stale"} 4"#,
            r#"edgewarden_frames_total{pipeline="belt",outcome="failed"} 1"#,
            r#"edgewarden_pictures_still_total{pipeline="belt"} 8"#,
            r#"edgewarden_source_state{pipeline="belt",state="lost"} 1.0"#,
            r#"edgewarden_source_state{pipeline="belt",state="running"} 0.0"#,
            r#"edgewarden_source_restarts_total{pipeline="belt"} 3"#,
            r#"edgewarden_events_total{pipeline="belt",class="nut \"M8\""} 5"#,
            r#"edgewarden_events_active{pipeline="belt",class="nut \"M8\""} 2.0"#,
            r#"edgewarden_frames_per_second{pipeline="belt"} 14.5"#,
            r#"edgewarden_latency_seconds{pipeline="belt",stage="infer",quantile="0.95"} 0.03"#,
            "edgewarden_swaps_total{} 2",
            r#"edgewarden_deployments_total{outcome="committed"} 2"#,
            r#"edgewarden_update_bytes_total{what="saved"} 30"#,
            r#"edgewarden_update_deltas_total{method="planes"} 3"#,
            r#"edgewarden_update_deltas_total{method="failed"} 1"#,
            r#"edgewarden_child_restarts_total{role="infer"} 1"#,
            r#"edgewarden_process_resident_memory_bytes{process="agent"} 4096.0"#,
            r#"edgewarden_process_cpu_seconds_total{process="agent"} 1.25"#,
            r#"edgewarden_temperature_celsius{zone="cpu \"0\"\n"} 61.5"#,
            r#"edgewarden_throttled{cause="under_voltage"} 1.0"#,
            "edgewarden_mqtt_connected{} 0.0",
            r#"edgewarden_mqtt_dropped_total{kind="spool"} 0"#,
        ] {
            assert!(text.lines().any(|l| l == line), "no line {line} in\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
        assert!(!text.contains("gpu_load") && !text.contains("stage=\"decode\""), "absent is absent");
    }

    #[test]
    fn every_line_is_a_comment_or_a_sample_of_a_described_metric() {
        let text = render(&report());
        let mut described = Vec::new();
        for line in text.lines().filter(|line| *line != "# EOF") {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                described.push(rest.split(' ').next().unwrap().to_owned());
            } else if !line.starts_with('#') {
                let name = line.split(['{', ' ']).next().unwrap();
                let metric = name.strip_suffix("_total").unwrap_or(name);
                assert_eq!(Some(metric), described.last().map(String::as_str), "{line}");
                let value = line.rsplit(' ').next().unwrap();
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        let mut once = described.clone();
        once.dedup();
        assert!(once == described && described.len() > 15);
    }
}
