//! Makes the device known to Home Assistant, and says anew what it is when that changed: another model, another
//! class that was counted, commands that need a signature from now on, a Home Assistant that came up.
//!
//! What the repository lists is read from what this device has seen and verified of it; nothing is fetched for
//! Home Assistant's sake.
//!
//! Counted are the classes that the pipeline's rules name; where they name none, those that were [`seen`].

mod seen;

use super::authority::Authority;
use super::bundles::Bundles;
use super::events::Events;
use crate::config::Settings;
use crate::config::settings::PipelineSettings;
use crate::domain::deployment::SlotState;
use crate::domain::metrics::MetricsReport;
use crate::domain::{CommandId, Release};
use crate::mqtt::homeassistant::{COMMANDS, MAX_CLASSES, ONLINE, PipelineView, View};
use crate::mqtt::{self, Listening, homeassistant};
use crate::sys::store::Store;
use crate::update::driver::Updater;
use seen::Seen;
use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::MissedTickBehavior;

/// Between two looks at what may have changed without a word.
const LOOK: Duration = Duration::from_secs(2);
/// So many of them between two looks at what the repository lists.
const LISTED: u32 = 150;
/// When Home Assistant comes up, a fleet does not answer in one moment.
const SPREAD_MS: u64 = 1500;

/// The figures, as others keep them.
type Figures = Arc<RwLock<Option<MetricsReport>>>;

/// Hears when Home Assistant comes up.
pub fn listen(settings: &Settings) -> (Option<Listening>, Arc<Notify>) {
    let heard: Arc<Notify> = Arc::default();
    let topic = homeassistant::status_topic(&settings.homeassistant.prefix);
    let listening = Listening { topic, word: ONLINE, heard: heard.clone() };
    (settings.homeassistant.discovery.then_some(listening), heard)
}

/// All that the message is made from.
pub struct Parts {
    /// The configuration.
    pub settings: Arc<Settings>,
    /// The broker.
    pub mqtt: mqtt::Handle,
    /// Told when Home Assistant came up.
    pub heard: Arc<Notify>,
    /// The slots.
    pub updater: Arc<Updater<Bundles>>,
    /// The repository.
    pub bundles: Arc<Bundles>,
    /// Who may command.
    pub gate: Arc<Authority>,
    /// What is counted.
    pub events: Arc<Events>,
    /// The figures.
    pub figures: Figures,
    /// A command of Home Assistant came to its end.
    pub used: Arc<Notify>,
    /// The board, or the architecture.
    pub board: String,
    /// Keeps which classes were seen.
    pub store: Store,
}

/// Keeps Home Assistant up to date until the agent ends.
pub async fn tend(parts: Parts) {
    let prefix = parts.settings.homeassistant.prefix.clone();
    if !parts.settings.homeassistant.discovery {
        parts.mqtt.hide_from_home_assistant(&prefix);
        return;
    }
    let Parts { settings, mqtt, heard, updater, bundles, gate, events, figures, used, board, store } = parts;
    let mut seen = Seen::kept_in(&store);
    tell_what_is_too_much(&settings.pipelines);
    let mut states = updater.subscribe();
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut listed, mut looks) = (Vec::new(), 0_u32);
    let mut shown: Option<Facts> = None;
    loop {
        let (mut came_up, mut used_up) = (false, false);
        tokio::select! {
            _ = look.tick() => looks = looks.wrapping_add(1),
            state = states.recv() => match state {
                Ok(state) if state.deployment.as_ref().is_some_and(|one| !one.stage.is_final()) => continue,
                // What was just brought in was asked of a newer list, maybe.
                Ok(_) | Err(RecvError::Lagged(_)) => looks = 0,
                Err(RecvError::Closed) => return,
            },
            // Its name is used up, also where it was refused and nothing changed.
            () = used.notified() => used_up = true,
            () = heard.notified() => came_up = true,
        }
        let Some(has_temperature) = has_temperature(&figures) else { continue };
        if looks % LISTED == 0 || shown.is_none() {
            listed = bundles.listed().await;
        }
        let slots = updater.states();
        let mut classes = Vec::new();
        for pipeline in &settings.pipelines {
            classes.push(counted(pipeline, &slots, &events, &mut seen).await);
        }
        let facts = Facts { slots, listed: listed.clone(), open: gate.is_open(), has_temperature, classes };
        let changed = shown.as_ref().is_none_or(|before| before.differs(&facts));
        if came_up {
            tracing::info!("homeassistant: it came up, and is told of this device");
            let wait = getrandom::u64().unwrap_or_default() % SPREAD_MS;
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        if changed || came_up || used_up {
            mqtt.show_to_home_assistant(&prefix, &facts.view(&settings, &board));
            shown = Some(facts);
        }
    }
}

/// What the message depends on.
struct Facts {
    slots: Vec<SlotState>,
    listed: Vec<Release>,
    open: bool,
    has_temperature: bool,
    classes: Vec<Option<Vec<String>>>,
}

impl Facts {
    /// Whether another message is due. A deployment that ended counts: its command's name is used up.
    fn differs(&self, other: &Self) -> bool {
        let key = |facts: &Self| -> Vec<_> {
            let ended = |state: &SlotState| {
                let ended = state.deployment.as_ref().filter(|one| one.stage.is_final());
                ended.map(|one| one.id.clone())
            };
            facts.slots.iter().map(|state| (state.current.clone(), ended(state))).collect()
        };
        (self.open, self.has_temperature) != (other.open, other.has_temperature)
            || (&self.classes, &self.listed) != (&other.classes, &other.listed)
            || key(self) != key(other)
    }

    fn view(&self, settings: &Settings, board: &str) -> View {
        let pipeline = |(one, classes): (&PipelineSettings, &Option<Vec<String>>)| {
            let state = self.slots.iter().find(|state| state.slot == one.slot);
            let current = state.and_then(|state| state.current.as_ref()).map(|current| &current.release);
            let offered = current.and_then(|current| newest(current, &self.listed));
            let install = offered.as_ref().filter(|_| self.open).and_then(|_| command_id());
            PipelineView {
                name: one.name.clone(),
                slot: one.slot.clone(),
                has_pictures: one.source.gives_pictures(),
                classes: classes.clone(),
                offered,
                install,
            }
        };
        View {
            agent_version: env!("CARGO_PKG_VERSION").to_owned(),
            board: board.to_owned(),
            has_temperature: self.has_temperature,
            pipelines: settings.pipelines.iter().zip(&self.classes).map(pipeline).collect(),
        }
    }
}

/// A command runs once under its name, so each message brings a new one.
fn command_id() -> Option<CommandId> {
    format!("{COMMANDS}{}", uuid::Uuid::now_v7().simple()).parse().ok()
}

/// The newest listed release of the same model that is newer than this one; one that is not finished is offered to
/// such only.
fn newest(current: &Release, listed: &[Release]) -> Option<Release> {
    let finished = |release: &Release| release.version.pre.is_empty();
    let newer = |release: &&Release| {
        release.name == current.name
            && release.version > current.version
            && (finished(release) || !finished(current))
    };
    listed.iter().filter(newer).max_by(|a, b| a.version.cmp(&b.version)).cloned()
}

/// The labels that are counted; none: the pipeline tells of no events.
async fn counted(
    pipeline: &PipelineSettings,
    slots: &[SlotState],
    events: &Events,
    seen: &mut Seen,
) -> Option<Vec<String>> {
    let rules = &pipeline.events.as_ref()?.rules;
    if !rules.classes.is_empty() {
        return Some(named(pipeline));
    }
    let state = slots.iter().find(|state| state.slot == pipeline.slot);
    let model = state.and_then(|state| state.current.as_ref()).map(|current| &current.release.name);
    let counts = events.counts(&pipeline.name).unwrap_or_default();
    Some(seen.of(&pipeline.name, model, counts.into_keys()).await)
}

/// The labels that the rules name, each once.
fn named(pipeline: &PipelineSettings) -> Vec<String> {
    let rules = pipeline.events.as_ref().map(|events| &events.rules);
    rules
        .map(|rules| rules.classes.iter().cloned().collect::<BTreeSet<_>>().into_iter().collect())
        .unwrap_or_default()
}

/// Says it once where the rules name more than is shown.
fn tell_what_is_too_much(pipelines: &[PipelineSettings]) {
    let count: usize = pipelines.iter().map(|one| named(one).len()).sum();
    if count > MAX_CLASSES {
        tracing::warn!(
            "homeassistant: the pipelines' events.classes name {count} classes, only the first {MAX_CLASSES} are counted there"
        );
    }
}

/// Whether the board tells a temperature; none before it was asked.
fn has_temperature(figures: &Figures) -> Option<bool> {
    let figures = figures.read().unwrap_or_else(PoisonError::into_inner);
    figures.as_ref().map(|figures| !figures.board.temperature_celsius.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_of_the_same_model_is_offered() {
        let releases =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Release>>();
        let listed = releases(&["m@1.0.0", "m@2.0.0", "m@10.0.0", "m@11.0.0-rc.1", "other@99.0.0"]);
        let offered =
            |current: &str| newest(&current.parse().unwrap(), &listed).map(|release| release.to_string());
        assert_eq!(offered("m@1.0.0").as_deref(), Some("m@10.0.0"), "by number, not by letter");
        assert_eq!(offered("m@10.0.0"), None);
        assert_eq!(offered("m@12.0.0"), None, "never an older one");
        assert_eq!(offered("m@11.0.0-beta.1").as_deref(), Some("m@11.0.0-rc.1"));
        assert_eq!(offered("third@1.0.0"), None);
        assert!(command_id().is_some() && command_id() != command_id());
    }
}
