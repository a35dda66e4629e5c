//! Checked settings, ready for use: every path absolute, every number within its bounds.

use super::access::is_loopback;
use crate::domain::authority::{Policy, Requirement};
use crate::domain::event::Rules;
use crate::domain::garbage::Spare;
use crate::domain::maintenance;
use crate::domain::manifest::Provider;
use crate::domain::motion::MotionSettings;
use crate::domain::runtime::Tuning;
use crate::domain::shadow;
use crate::domain::source::SourceSettings;
use crate::domain::{DeviceId, PipelineName, SlotName};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Name in the state folder of the device's own key for encrypted models.
pub const MODEL_KEY: &str = "model-key.txt";

/// All that the configuration says.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// `[device]`
    pub device: DeviceSettings,
    /// `[paths]`
    pub paths: PathSettings,
    /// `[runtime]`
    pub runtime: RuntimeSection,
    /// `[mqtt]`; without it the device does not report.
    pub mqtt: Option<MqttSettings>,
    /// `[homeassistant]`
    pub homeassistant: HomeAssistantSettings,
    /// `[commands]`
    pub commands: CommandSettings,
    /// `[repository]`; without it the device takes no bundles.
    pub repository: Option<RepositorySettings>,
    /// `[update]`
    pub update: UpdateSettings,
    /// `[health]`
    pub health: HealthSettings,
    /// `[log]`
    pub log: LogSettings,
    /// `[[pipeline]]`, each with its own slot; none on a device that is still to be set up.
    pub pipelines: Vec<PipelineSettings>,
}

impl Settings {
    /// All files with keys that may open an encrypted model, the device's own first.
    pub fn model_keys(&self) -> Vec<PathBuf> {
        let own = self.paths.state.join(MODEL_KEY);
        std::iter::once(own).chain(self.runtime.model_keys.iter().cloned()).collect()
    }
}

/// Who the device is.
#[derive(Debug, Clone, PartialEq)]
pub struct DeviceSettings {
    /// Unique in the fleet; the host name when not configured.
    pub id: DeviceId,
    /// Groups whose commands it obeys.
    pub groups: Vec<DeviceId>,
}

/// Where things lie.
#[derive(Debug, Clone, PartialEq)]
pub struct PathSettings {
    /// Survives a reboot: `models/`, `slots/`, `downloads/`, `engines/`, `store/`, `metadata/`.
    pub state: PathBuf,
    /// Gone at reboot: the local socket `agent.sock`, shared-memory bookkeeping.
    pub runtime: PathBuf,
}

impl PathSettings {
    /// The Unix socket over which `edgewarden status` and its like talk to the agent.
    pub fn socket(&self) -> PathBuf {
        self.runtime.join("agent.sock")
    }
}

/// How models are run.
#[derive(Debug, Clone, PartialEq)]
pub struct RuntimeSection {
    /// `libonnxruntime.so`.
    pub library: PathBuf,
    /// Files with the keys that open encrypted models, besides the device's own.
    pub model_keys: Vec<PathBuf>,
    /// In the order of preference.
    pub providers: Vec<Provider>,
    /// Fail rather than fall back to a later provider.
    pub required: bool,
    /// Threads inside one operator; over the bundle's hint.
    pub intra_threads: Option<usize>,
    /// Prepare the next frame while the model runs; absent: where there are two processors or more.
    pub overlap: Option<bool>,
    /// Everything else of the runtime; over the bundle's hints, key by key.
    pub tuning: Tuning,
    /// A frame that takes longer than this means that the child hangs.
    pub frame_deadline: Duration,
    /// Loading a model (and building its engine) may take so long.
    pub load_deadline: Duration,
    /// Memory of a serving model's process above which it is replaced by a fresh one, bytes; 0 judges by
    /// its growth.
    pub memory_budget: u64,
    /// Shortest time between two such replacements of one pipeline.
    pub recycle_interval: Duration,
    /// Memory that a model's process can get at all, bytes (0: no limit).
    pub memory_limit: u64,
}

/// The broker.
#[derive(Debug, Clone, PartialEq)]
pub struct MqttSettings {
    /// Host name or address.
    pub host: String,
    /// 1883, or 8883 with TLS, when the URL names none.
    pub port: u16,
    /// `ws://` and `wss://`: the path below which a web server speaks MQTT, with its first slash.
    pub web_path: Option<String>,
    /// `mqtts://` and `wss://`: TLS with the server's certificate checked.
    pub tls: Option<TlsSettings>,
    /// User name.
    pub username: Option<String>,
    /// File with the password; a line break at its end is dropped.
    pub password_file: Option<PathBuf>,
    /// Seconds between signs of life to the broker.
    pub keep_alive: Duration,
    /// First level of every topic.
    pub root: String,
    /// Results per second and pipeline at most (0: none).
    pub results_per_second: f32,
    /// What is kept for a broker that is away.
    pub spool: SpoolBounds,
}

/// How much that must arrive is kept while the broker is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpoolBounds {
    /// Messages at most.
    pub messages: usize,
    /// Bytes of their topics and payloads at most.
    pub bytes: usize,
}

impl Default for SpoolBounds {
    /// About a week of 100 events an hour with three messages each.
    fn default() -> Self {
        Self { messages: 50_000, bytes: 32 << 20 }
    }
}

/// How the device makes itself known to Home Assistant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HomeAssistantSettings {
    /// Whether it does.
    pub discovery: bool,
    /// First levels of the topic on which Home Assistant looks for devices.
    pub prefix: String,
}

/// TLS to the broker, or to the repository.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TlsSettings {
    /// Certificate authority, PEM; the system's when absent.
    pub ca_file: Option<PathBuf>,
    /// Client certificate chain and key, PEM.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Which commands over MQTT are taken.
#[derive(Debug, Clone, PartialEq)]
pub struct CommandSettings {
    /// Which must be signed.
    pub require_signature: Requirement,
    /// Whether those that only look need no signature in any case.
    pub unsigned_observe: bool,
    /// How often the repository is asked for the list of operators.
    pub refresh: Duration,
    /// How far ahead of this device's clock a command may have been issued.
    pub clock_tolerance: Duration,
    /// Commands a minute over MQTT at most: as many that look, and as many that act.
    pub per_minute: u32,
    /// How long a configuration that was set from afar has to show that the agent is well with it.
    pub set_trial: Duration,
}

impl CommandSettings {
    /// Which commands count without a signature that come by the broker at this host.
    pub fn policy(&self, broker: &str) -> Policy {
        Policy {
            requirement: self.require_signature,
            unsigned_observe: self.unsigned_observe,
            loopback: is_loopback(broker),
        }
    }
}

/// Where bundles come from.
#[derive(Debug, Clone, PartialEq)]
pub struct RepositorySettings {
    /// `http://`, `https://` or `file://`, ending in a slash; without one, bundles come only from files,
    /// and `root` is what they are verified against.
    pub url: Option<url::Url>,
    /// The pinned root metadata.
    pub root: PathBuf,
    /// Longest wait for the next byte.
    pub stall_timeout: Duration,
    /// Tries before a fetch fails.
    pub retries: usize,
    /// Bytes per second at most (0: no limit).
    pub rate_limit: u64,
    /// Whom to trust, what to show, and by which way.
    pub access: AccessSettings,
}

/// How a repository on a web server is reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AccessSettings {
    /// `https://`: the authority, and the device's own certificate and key.
    pub tls: TlsSettings,
    /// File with the bearer token.
    pub token_file: Option<PathBuf>,
    /// The proxy.
    pub proxy: ProxySettings,
}

/// Through which proxy a repository is reached.
#[derive(Debug, Clone, Default, PartialEq)]
pub enum ProxySettings {
    /// As the environment says: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`, `NO_PROXY`.
    #[default]
    Environment,
    /// Through none, whatever the environment says.
    Direct,
    /// Through this one.
    Through {
        /// `http://`, `https://`, `socks5://` or `socks5h://` (the proxy resolves names), without a user.
        url: url::Url,
        /// User name, and the file with the password.
        login: Option<(String, PathBuf)>,
        /// Hosts, domains, addresses and networks that are reached without it.
        no_proxy: Vec<String>,
    },
}

/// When a candidate is good enough.
#[derive(Debug, Clone, PartialEq)]
pub struct UpdateSettings {
    /// Answered frames in probation before commit.
    pub probation_frames: u64,
    /// Probation lasts at least so long.
    pub probation_min: Duration,
    /// Probation that has not seen enough frames by then fails.
    pub probation_max: Duration,
    /// Share of frames, 0 to 1, that may end in an error.
    pub max_error_ratio: f32,
    /// Times the previous model's median time per frame.
    pub max_slowdown: f32,
    /// Milliseconds per frame that are never too slow, whatever the previous model took.
    pub slow_floor_ms: f32,
    /// Frames that a candidate answers in the shadow before its swap (0: none).
    pub shadow_frames: u64,
    /// A shadow run that has not compared enough frames by then refuses the candidate.
    pub shadow_max: Duration,
    /// Least agreement of the candidate with the model that serves, 0 to 1.
    pub shadow_min_agreement: f32,
    /// Memory that the candidate's process may have in the shadow, bytes (0: no limit).
    pub shadow_max_memory: u64,
    /// Restarts of the agent during one probation before it is a boot loop.
    pub max_boots: u32,
    /// Starts of the agent in a row that may end badly before the bundle that serves is to blame (0: any number).
    pub max_starts: u32,
    /// An agent that was up for so long was started well.
    pub settled: Duration,
    /// An update that goes on after a restart waits so long for its repository.
    pub resume_max: Duration,
    /// Bytes of disk that an update leaves free.
    pub disk_reserve: u64,
    /// Largest bundle accepted, bytes.
    pub max_bundle: u64,
    /// Bundles that are kept beside those that serve or may come back.
    pub spare: Spare,
    /// How long after its signatures have expired a bundle file is still taken.
    pub sideload_grace: Duration,
    /// Public keys (PEM, P-256) of which one must have signed the model (`model.sig`); none: it need not be
    /// signed so.
    pub require_model_signature: Vec<PathBuf>,
    /// When an update may go on.
    pub rules: maintenance::Rules,
}

impl UpdateSettings {
    /// How a candidate runs in the shadow, where the deployment asks for nothing else.
    pub fn shadow_plan(&self) -> shadow::Plan {
        shadow::Plan {
            frames: self.shadow_frames,
            max_time: self.shadow_max,
            min_agreement: self.shadow_min_agreement,
            max_slowdown: self.max_slowdown,
            slow_floor_ms: self.slow_floor_ms,
            max_memory: self.shadow_max_memory,
            max_error_ratio: self.max_error_ratio,
        }
    }
}

/// How the device tells that it is well.
#[derive(Debug, Clone, PartialEq)]
pub struct HealthSettings {
    /// Between two health reports and two metrics reports.
    pub interval: Duration,
    /// Address for Prometheus' text over HTTP, loopback unless the user says otherwise;
    /// the local socket has it in any case.
    pub prometheus: Option<SocketAddr>,
}

/// What the agent writes to standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or directives as `tracing_subscriber::filter::Targets` reads them; checked.
    pub filter: String,
    /// How a line looks.
    pub format: LogFormat,
}

/// How a log line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// One source → one model → its outputs.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineSettings {
    /// Its name.
    pub name: PipelineName,
    /// The slot whose bundle it runs; no two pipelines share one.
    pub slot: SlotName,
    /// Frames a second at most.
    pub fps: f32,
    /// Every frame of a source that waits is answered, as fast as the model goes; `fps` is then the
    /// highest that there is.
    pub every: bool,
    /// No model is run on a frame older than this; `None` for any age.
    pub max_age: Option<Duration>,
    /// A source that gives nothing for so long is restarted.
    pub stall_timeout: Duration,
    /// The part of each picture that the model looks at: left, top, width, height as shares of it.
    pub crop: Option<[f32; 4]>,
    /// Hold still pictures back; of the source, like it.
    pub motion: Option<MotionSettings>,
    /// What is an event; `None`: nothing.
    pub events: Option<EventSettings>,
    /// What it looks at.
    pub source: SourceSettings,
    /// The pipeline whose source that is; its own name where it has one of its own.
    pub source_of: PipelineName,
}

/// Which events a pipeline tells of, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct EventSettings {
    /// What is an event.
    pub rules: Rules,
    /// A picture goes with the beginning of an event, at most so often; `None`: none does.
    pub picture_every: Option<Duration>,
}
