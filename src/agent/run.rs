//! The agent's life: everything that can wake it, until it is told to end; then the end, with a
//! deadline for each step.

use super::assemble::{Agent, assemble, clear};
use super::audit;
use super::commands::Ordered;
use super::local;
use super::remote::{Next, Remote, Trial};
use super::tally::{News, Tally};
use crate::config::Settings;
use crate::domain::config_trial::Before;
use crate::domain::deployment::SlotState;
use crate::domain::health::{HealthReport, HealthState};
use crate::domain::metrics::{BoardMetrics, MetricsReport};
use crate::domain::watchdog::Watchdog;
use crate::domain::{Reason, ReasonCode};
use crate::mqtt::{self, homeassistant};
use crate::sys::background;
use crate::sys::blocking::blocking;
use crate::sys::{heap, notify, program};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, broadcast};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// How often the judgement is made between two reports, to tell a change at once.
const LOOK: Duration = Duration::from_secs(1);
/// When memory that was only needed to start, for an update, or for a look at the repository is given back: first, and
/// from then on. What a waiting agent needs lies side by side in the program, and so costs next to nothing to get again.
const SLIM_FIRST: Duration = Duration::from_secs(30);
const SLIM: Duration = Duration::from_secs(60);
/// Before the watchdog is fed again, where the service manager had no room to hear it.
const FEED_AGAIN: Duration = Duration::from_millis(200);
/// Commands that are carried out at once; more wait in their channels.
const AT_ONCE: usize = 16;
/// Before it is looked whether a command can be carried out again, where all places are taken.
const PLACE: Duration = Duration::from_millis(100);
/// What the broker gets to take the last messages.
const FAREWELL: Duration = Duration::from_secs(3);

/// Why the agent ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was told to end.
    Stopped,
    /// It was told to start anew.
    Restart,
}

/// Runs the agent until SIGTERM, SIGINT, or a command that has it start anew. `config`: the main file that the
/// settings come from.
///
/// # Errors
/// What kept it from starting, or made it give up.
pub async fn run(settings: Settings, config: PathBuf) -> Result<End, Reason> {
    let restart = CancellationToken::new();
    let here = Remote::new(&config);
    let (mut agent, socket) = assemble(settings, config, restart.clone()).await?;
    let patience = agent.settings.commands.set_trial;
    let mut trial = blocking(move || Ok(Trial::under_way(here, patience))).await?;
    let prometheus = match agent.settings.health.prometheus {
        Some(address) => Some(local::listen_prometheus(address).await?),
        None => None,
    };
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;

    let servers = CancellationToken::new();
    let mut serving = JoinSet::new();
    serving.spawn(local::serve(socket, agent.api.clone(), servers.clone()));
    if let Some(listener) = prometheus {
        serving.spawn(local::serve_metrics(listener, agent.api.metrics.clone(), servers.clone()));
    }

    let mut states = agent.commands.updater.subscribe();
    let mut tally = Tally::default();
    for state in agent.reports.slots() {
        tally.see(&state);
        // Also those that a crash may have kept from being told.
        told(&agent, &state);
    }
    let gate = Arc::new(Semaphore::new(AT_ONCE));
    let mut commands = JoinSet::new();
    let mut look = ticks(LOOK);
    let mut slim = tokio::time::interval_at(tokio::time::Instant::now() + SLIM_FIRST, SLIM);
    let mut report = ticks(agent.reports.interval());
    let mut feed = ticks(notify::watchdog_interval().unwrap_or(Duration::from_secs(3600)));
    let (mut watchdog, begun) = (Watchdog::default(), Instant::now());
    let mut gathering: Option<JoinHandle<MetricsReport>> = None;
    let mut board = BoardMetrics::default();
    let mut shown: Option<HealthReport> = None;
    let mut tending: Option<JoinHandle<()>> = None;
    notify::ready("running");
    tracing::info!(device = %agent.settings.device.id, "agent {} runs", env!("CARGO_PKG_VERSION"));

    let end = loop {
        tokio::select! {
            _ = terminate.recv() => break Ok(End::Stopped),
            _ = interrupt.recv() => break Ok(End::Stopped),
            () = restart.cancelled() => break Ok(End::Restart),
            Some(ended) = serving.join_next() => match ended {
                // Both were bound before the start; what ends them later is no reason to stop a device
                // in the field.
                Ok(Err(reason)) => tracing::error!("{reason}"),
                Ok(Ok(())) => {}
                Err(error) => tracing::error!(%error, "a server of this machine ended"),
            },
            // The others wait in their channel, which is bounded, and beyond it they are refused.
            Some(incoming) = agent.from_mqtt.recv(), if gate.available_permits() > 0 => {
                carry_out(&agent, &gate, &mut commands, incoming.into());
            }
            Some(request) = agent.from_local.recv(), if gate.available_permits() > 0 => {
                let ordered = Ordered::local(request, &agent.settings.device.id, &agent.commands.audit);
                carry_out(&agent, &gate, &mut commands, ordered);
            }
            // A deployment gives its place back long before it ends.
            () = tokio::time::sleep(PLACE), if gate.available_permits() == 0 => {}
            Some(_) = commands.join_next() => {}
            state = states.recv() => match state {
                Ok(state) => changed(&agent, &mut tally, &state),
                // The newest state of each slot says all that still counts.
                Err(broadcast::error::RecvError::Lagged(_)) => {
                    for state in agent.reports.slots() {
                        changed(&agent, &mut tally, &state);
                    }
                }
                Err(broadcast::error::RecvError::Closed) => {
                    break Err(Reason::new(ReasonCode::Internal, "the update side of the agent ended"));
                }
            },
            // Beside this loop, which must not wait for figures of a busy machine.
            _ = report.tick(), if gathering.is_none() => {
                let reports = agent.reports.clone();
                gathering = Some(tokio::spawn(async move { reports.metrics().await }));
            }
            metrics = gathered(&mut gathering) => {
                gathering = None;
                let Some(metrics) = metrics else { continue };
                board = metrics.board.clone();
                if let Some(mqtt) = &agent.mqtt {
                    mqtt.metrics(&metrics);
                }
                *agent.figures.write().unwrap_or_else(PoisonError::into_inner) = Some(metrics);
                show(&agent, &board, &mut shown, true);
            }
            _ = look.tick() => {
                tend(&agent, &mut tending);
                show(&agent, &board, &mut shown, false);
                match judge(&agent, &board, trial.as_mut()) {
                    Next::Wait => {}
                    Next::Over => trial = None,
                    Next::Restart => break Ok(End::Restart),
                }
            }
            _ = slim.tick() => slim_down(),
            _ = feed.tick() => {
                let due = watchdog.due(&agent.reports.pulses(), begun.elapsed());
                if due && !notify::feed() {
                    feed.reset_after(FEED_AGAIN);
                }
            }
        }
    };
    notify::stopping("ending");
    servers.cancel();
    finish(agent, commands).await;
    while serving.join_next().await.is_some() {}
    end
}

fn listen(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Reason> {
    signal(kind).map_err(|error| Reason::new(ReasonCode::Internal, format!("listen for signals: {error}")))
}

fn ticks(every: Duration) -> tokio::time::Interval {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

/// Starts a command beside the others.
fn carry_out(agent: &Agent, gate: &Arc<Semaphore>, commands: &mut JoinSet<()>, ordered: Ordered) {
    let (actor, reports, gate) = (agent.commands.clone(), agent.reports.clone(), gate.clone());
    tracing::info!(command = ordered.request.command.name(), id = %ordered.request.id, "command");
    let id = ordered.request.id.as_str();
    let home = id.starts_with(homeassistant::COMMANDS).then(|| agent.home.clone());
    // One was free a moment ago, and nobody else takes them.
    let place = gate.try_acquire_owned();
    commands.spawn(async move {
        let Ok(place) = place else { return };
        let working = {
            let reports = reports.clone();
            move || Before::of(&reports.health(BoardMetrics::default()))
        };
        let status = async move { serde_json::to_value(reports.status().await).unwrap_or_default() };
        actor.execute(ordered, status, working, place).await;
        if let Some(home) = home {
            home.notify_one();
        }
    });
}

/// Looks at a configuration that is on trial.
fn judge(agent: &Agent, board: &BoardMetrics, trial: Option<&mut Trial>) -> Next {
    let Some(trial) = trial else { return Next::Wait };
    trial.look(&agent.reports.health(board.clone()), agent.mqtt.as_ref(), &agent.commands.audit)
}

/// The figures that are being gathered; `None` where that gave up. Never, where none are.
async fn gathered(gathering: &mut Option<JoinHandle<MetricsReport>>) -> Option<MetricsReport> {
    match gathering {
        Some(task) => task.await.ok(),
        None => std::future::pending().await,
    }
}

/// Gives back memory that is not needed now. Nobody waits for it.
fn slim_down() {
    // Without threads for it, the next time does it.
    drop(background::spawn_blocking(|| {
        heap::trim();
        program::let_go_of_code();
    }));
}

/// Tries a store that refuses again, whether somebody needs it or not; one try at a time.
fn tend(agent: &Agent, tending: &mut Option<JoinHandle<()>>) {
    let idle = tending.as_ref().is_none_or(JoinHandle::is_finished);
    if idle && agent.store.condition().refuses.is_some() {
        let store = agent.store.clone();
        // Without threads it is tried again soon.
        *tending = background::spawn_blocking(move || store.tend()).ok();
    }
}

/// A slot's state changed.
fn changed(agent: &Agent, tally: &mut Tally, state: &SlotState) {
    let News { swapped, ended, transfer } = tally.see(state);
    if swapped {
        agent.telemetry.swapped();
    }
    if let Some(stage) = ended {
        agent.telemetry.deployment_ended(stage);
    }
    if let Some(transfer) = &transfer {
        agent.telemetry.transferred(transfer);
    }
    told(agent, state);
}

fn told(agent: &Agent, state: &SlotState) {
    if let Some(mqtt) = &agent.mqtt {
        mqtt.slot_state(&agent.reports.with_provider(state.clone()));
    }
}

/// Judges, and tells when something changed or it is time.
fn show(agent: &Agent, board: &BoardMetrics, shown: &mut Option<HealthReport>, due: bool) {
    let health = agent.reports.health(board.clone());
    let changed = shown.as_ref().is_none_or(|before| health.differs(before));
    if !changed && !due {
        return;
    }
    if changed {
        let word = match health.state {
            HealthState::Ok => "ok",
            HealthState::Degraded => "degraded",
            HealthState::Failed => "failed",
        };
        let worst = health.problems.first().map(|problem| problem.detail.as_str()).unwrap_or_default();
        tracing::info!(health = word, "{worst}");
        notify::status(&format!("{word} {worst}"));
    }
    if let Some(mqtt) = &agent.mqtt {
        mqtt.health(&health);
    }
    *shown = Some(health);
}

/// Ends everything in the opposite order of its beginning.
async fn finish(agent: Agent, mut commands: JoinSet<()>) {
    let Agent { commands: actor, reports, mqtt, store, channels, events, .. } = agent;
    drop(reports);
    commands.shutdown().await;
    actor.audit.abandon();
    let _ = tokio::time::timeout(audit::FAREWELL, actor.audit.flush()).await;
    // Deployments stay where they are in the journal and go on at the next start.
    actor.updater.ends_on_purpose().await;
    actor.updater.stop().await;
    actor.device.stop().await;
    events.end().await;
    clear(&channels).await;
    if let Some(mqtt) = mqtt {
        mqtt::Handle::shutdown(&mqtt, FAREWELL).await;
    }
    events.forget().await;
    if let Err(reason) = blocking(move || Ok(store.sync()?)).await {
        tracing::error!(%reason, "the store could not be synced");
    }
}
