//! A whole device: the real daemon with folders of its own, what it says on MQTT, and a repository that
//! it pulls from.

use super::mosquitto::Mosquitto;
use super::web::Web;
use super::{Edgewarden, Ended, onnxruntime, root, wait_until};
use bytes::Bytes;
use edgewarden::domain::deployment::{SlotState, Stage};
use edgewarden::domain::health::HealthReport;
use edgewarden::domain::metrics::MetricsReport;
use edgewarden::domain::status::DeviceStatus;
use edgewarden::domain::{DeviceId, FrameResult, Reason};
use edgewarden::mqtt::message::Received;
use edgewarden::mqtt::operator::{Operator, Pending};
use edgewarden::mqtt::payloads::event::{CountsMessage, EventMessage};
use edgewarden::mqtt::payloads::{Birth, CommandReply, DroppedReport, Stamped};
use edgewarden::mqtt::topics::{Audience, Said, Topic, Topics};
use edgewarden::process::frames;
use edgewarden::process::protocol::FrameChannel;
use edgewarden::trust::{InitOptions, Publisher};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Only a guard against a test that hangs.
pub const PATIENCE: Duration = Duration::from_secs(180);
/// The device's only slot.
pub const SLOT: &str = "detector";
/// The device's only pipeline.
pub const PIPELINE: &str = "main";

/// A bundle folder of the repository: `v1` to `v5`.
pub fn model(name: &str) -> PathBuf {
    root().join("packaging/models").join(name)
}

/// The release of such a folder.
pub fn release(number: u32) -> String {
    format!("belt-inspector@{number}.0.0")
}

/// A signed repository behind a web server.
pub struct Repository {
    /// Its folder is `repository`, its keys lie in `keys`; tests put what they like beside them.
    pub dir: tempfile::TempDir,
    /// Its server.
    pub web: Web,
    /// For more releases.
    pub publisher: Publisher,
}

impl Repository {
    /// Publishes these of the committed models.
    pub fn with(models: &[&str]) -> Self {
        Self::at(models, InitOptions::default(), jiff::Timestamp::now())
    }

    /// The same, at another time.
    pub fn at(models: &[&str], options: InitOptions, now: jiff::Timestamp) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let (repository, keys) = (dir.path().join("repository"), dir.path().join("keys"));
        let mut publisher = Publisher::init(&repository, &keys, options, now).expect("a new repository");
        for name in models {
            publisher.publish(&model(name), now, &|_| {}).expect("publish a committed model");
        }
        Self { web: Web::start(&repository), dir, publisher }
    }

    /// The repository's folder.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("repository")
    }

    /// Copies a bundle folder under a new version, lets `change` spoil it, seals and publishes it; gives
    /// the release.
    pub fn publish_variant(
        &mut self,
        from: &str,
        version: &str,
        change: impl FnOnce(&Path, &mut Value),
    ) -> String {
        let folder = self.dir.path().join(format!("bundle-{version}"));
        variant(&model(from), &folder, version, change);
        self.publisher.publish(&folder, jiff::Timestamp::now(), &|_| {}).expect("publish a variant");
        format!("belt-inspector@{version}")
    }

    /// The same bundle under a new version, signed at another time.
    pub fn publish_at(&mut self, from: &str, version: &str, time: jiff::Timestamp) {
        let folder = self.dir.path().join(format!("bundle-{version}"));
        variant(&model(from), &folder, version, |_, _| {});
        self.publisher.publish(&folder, time, &|_| {}).expect("publish a variant");
    }

    /// Where the repository keeps the model file of a committed bundle.
    pub fn model_blob(name: &str) -> String {
        let manifest: Value =
            serde_json::from_slice(&std::fs::read(model(name).join("manifest.json")).unwrap()).unwrap();
        let files = manifest["files"].as_array().unwrap();
        let model = files.iter().find(|file| file["path"] == "model.onnx").unwrap();
        format!("blobs/{}", model["sha256"].as_str().unwrap())
    }
}

/// Copies a bundle folder, changes its files or its manifest, and lists its files anew.
pub fn variant(from: &Path, to: &Path, version: &str, change: impl FnOnce(&Path, &mut Value)) {
    copy_tree(from, to);
    let path = to.join("manifest.json");
    let mut manifest: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    manifest["version"] = version.into();
    change(to, &mut manifest);
    std::fs::write(&path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
    edgewarden::bundle::seal(to).expect("seal the variant");
}

/// Copies a folder with all that is in it.
pub fn copy_tree(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (entry, to) = {
            let entry = entry.unwrap();
            let to = to.join(entry.file_name());
            (entry, to)
        };
        if entry.file_type().unwrap().is_dir() {
            copy_tree(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}

/// How a device is configured; begins with a small synthetic camera and a short probation.
#[derive(Clone)]
pub struct Options {
    table: toml::Table,
    pipeline: toml::Table,
    others: Vec<toml::Table>,
    environment: Vec<(String, String)>,
    broker: Option<String>,
    program: PathBuf,
}

impl Default for Options {
    fn default() -> Self {
        let text = format!(
            r#"
            [paths]
            state = "state"
            runtime = "run"
            [runtime]
            library = "{}"
            [update]
            probation_frames = 10
            probation_min = "300ms"
            probation_max = "30s"
            max_error_ratio = 0.1
            slow_floor_ms = 5000
            disk_reserve = "1MiB"
            [health]
            interval = "1s"
            "#,
            onnxruntime().display()
        );
        let pipeline = format!(
            r#"
            name = "{PIPELINE}"
            slot = "{SLOT}"
            fps = 20
            source = {{ kind = "synthetic", seed = 7, width = 320, height = 240 }}
            "#
        );
        Self {
            table: text.parse().unwrap(),
            pipeline: pipeline.parse().unwrap(),
            others: Vec::new(),
            environment: Vec::new(),
            broker: None,
            program: Edgewarden::path().to_owned(),
        }
    }
}

impl Options {
    /// A device with this broker and this repository.
    pub fn new(broker: &Mosquitto, repository: &Repository) -> Self {
        Self::default().broker(broker).repository(repository)
    }

    /// Reports to this broker, and hears what it says there.
    pub fn broker(mut self, broker: &Mosquitto) -> Self {
        self.broker = Some(broker.url());
        self.set("mqtt.url", broker.url()).set("mqtt.results_per_second", 1000)
    }

    /// Pulls from this repository.
    pub fn repository(self, repository: &Repository) -> Self {
        let root = repository.publisher.pinned_root();
        self.set("repository.url", repository.web.url())
            .set("repository.root", root.to_str().unwrap())
            .set("repository.stall_timeout", "1s")
            .set("repository.retries", 2)
    }

    /// Sets a key, such as `update.max_boots` or `pipeline.fps`.
    pub fn set(mut self, key: &str, value: impl Into<toml::Value>) -> Self {
        let (section, name) = key.split_once('.').expect("SECTION.KEY");
        let table = match section {
            "pipeline" => &mut self.pipeline,
            _ => self.table.entry(section).or_insert(toml::Table::new().into()).as_table_mut().unwrap(),
        };
        table.insert(name.to_owned(), value.into());
        self
    }

    /// Looks at the pictures of a folder.
    pub fn pictures(self, folder: &Path) -> Self {
        let mut source = toml::Table::new();
        source.insert("kind".into(), "folder".into());
        source.insert("path".into(), folder.to_str().unwrap().into());
        self.set("pipeline.source", source)
    }

    fn write(&self, folder: &Path) {
        let mut table = self.table.clone();
        let pipelines = [&self.pipeline].into_iter().chain(&self.others);
        let pipelines = pipelines.map(|one| one.clone().into()).collect();
        table.insert("pipeline".into(), toml::Value::Array(pipelines));
        std::fs::write(folder.join("agent.toml"), table.to_string()).unwrap();
    }

    /// Adds a pipeline, as it stands below `[[pipeline]]`.
    pub fn and(mut self, pipeline: &str) -> Self {
        self.others.push(pipeline.parse().expect("a table"));
        self
    }

    /// Starts the daemon from another file.
    pub fn program(mut self, file: &Path) -> Self {
        file.clone_into(&mut self.program);
        self
    }

    /// Gives the daemon an environment variable.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }
}

/// What a device said on MQTT, in the order of arrival.
#[derive(Debug, Default)]
pub struct Heard {
    /// `online`, `offline`.
    pub availability: Vec<String>,
    /// Births.
    pub births: Vec<Birth>,
    /// Health reports.
    pub health: Vec<HealthReport>,
    /// States of the slot.
    pub states: Vec<SlotState>,
    /// Answers to frames.
    pub frames: Vec<FrameResult>,
    /// Figures.
    pub metrics: Vec<MetricsReport>,
    /// The newest message of each topic, without the device's own levels before it.
    pub newest: BTreeMap<String, Bytes>,
    /// What was dropped.
    pub dropped: Vec<DroppedReport>,
    /// What happened to events.
    pub events: Vec<EventMessage>,
    /// Counts of events.
    pub counts: Vec<CountsMessage>,
    /// Pictures.
    pub snapshots: Vec<Bytes>,
    /// Replies to commands without a response topic.
    pub acks: Vec<CommandReply>,
}

impl Heard {
    fn take(&mut self, said: Said, message: &Received) {
        fn body<T: serde::de::DeserializeOwned>(message: &Received) -> T {
            let stamped: Stamped<T> = serde_json::from_slice(&message.payload)
                .unwrap_or_else(|error| panic!("{}: {error}", message.topic));
            stamped.body
        }
        self.newest.insert(said.to_string(), message.payload.clone());
        match said {
            Said::Availability => {
                self.availability.push(String::from_utf8(message.payload.to_vec()).unwrap());
            }
            Said::Birth => self.births.push(body(message)),
            Said::Health => self.health.push(body(message)),
            Said::SlotState(_) => self.states.push(body(message)),
            Said::Telemetry(_) => self.frames.push(body(message)),
            Said::Event(_) => self.events.push(body(message)),
            Said::Counts(_) => self.counts.push(body(message)),
            Said::Snapshot(_) => self.snapshots.push(message.payload.clone()),
            Said::Metrics => self.metrics.push(body(message)),
            Said::Dropped => self.dropped.push(body(message)),
            Said::Ack { .. } => self.acks.push(body(message)),
        }
    }

    /// Whether it is online.
    pub fn online(&self) -> bool {
        self.availability.last().is_some_and(|word| word == "online")
    }

    /// The release that serves, as last told.
    pub fn current(&self) -> Option<String> {
        Some(self.states.last()?.current.as_ref()?.release.to_string())
    }

    /// The stage of the newest deployment, as last told.
    pub fn stage(&self) -> Option<Stage> {
        Some(self.states.last()?.deployment.as_ref()?.stage)
    }
}

/// The daemon, and somebody who listens; it is killed with the value.
pub struct Device {
    /// Holds `agent.toml`, `agent.log`, `state/`, `run/`.
    pub folder: tempfile::TempDir,
    /// What it said.
    pub heard: Arc<Mutex<Heard>>,
    id: DeviceId,
    options: Options,
    child: Option<Child>,
    operator: Option<Arc<Operator>>,
    tokio: tokio::runtime::Runtime,
}

impl Device {
    /// Writes the configuration and listens; the daemon is still to be started.
    pub fn new(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("ew").tempdir().expect("a folder");
        let id: DeviceId = folder.path().file_name().unwrap().to_str().unwrap().parse().expect("a device id");
        let options = options.set("device.id", id.as_str()).set("device.groups", vec!["line"]);
        options.write(folder.path());
        let tokio =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let heard: Arc<Mutex<Heard>> = Arc::default();
        let operator = options.broker.as_ref().map(|url| {
            let filter = Topics::new("edgewarden").unwrap().all_of(&id);
            let connected = Operator::connect(url, None, "edgewarden", vec![filter], PATIENCE);
            let operator = Arc::new(tokio.block_on(connected).expect("the test's own connection"));
            tokio.spawn(listen(operator.clone(), heard.clone()));
            operator
        });
        Self { folder, heard, id, options, child: None, operator, tokio }
    }

    /// Starts it, lets it take a first release, and waits until that serves.
    pub fn serving(options: Options, first: &str) -> Self {
        let mut device = Self::new(options);
        device.start();
        device.update(first).unwrap_or_else(|reason| panic!("{first}: {reason}"));
        device.until_frames(3);
        device
    }

    /// Changes the configuration for the next start; the broker that is listened to stays.
    pub fn configure(&mut self, change: impl FnOnce(Options) -> Options) {
        self.options = change(self.options.clone());
        self.options.write(self.folder.path());
    }

    /// Starts the daemon; its log is added to `agent.log`.
    pub fn start(&mut self) {
        let log = File::options().create(true).append(true).open(self.path("agent.log")).unwrap();
        self.start_by(Edgewarden::command_of(&self.options.program), log);
    }

    /// Starts the daemon by a command that ends with its program, with a log of its own.
    pub fn start_by(&mut self, mut command: std::process::Command, log: File) {
        let child = command
            .arg("run")
            .arg("--config")
            .arg(self.path("agent.toml"))
            .envs(self.options.environment.iter().map(|(name, value)| (name, value)))
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("start the daemon");
        self.child = Some(child);
    }

    /// A path in its folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Its log so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap_or_default()
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// SIGTERM, and how it ended.
    pub fn stop(&mut self) -> ExitStatus {
        signal(self.pid(), rustix::process::Signal::TERM);
        self.ended()
    }

    /// Waits until it has ended by itself.
    pub fn ended(&mut self) -> ExitStatus {
        let child = self.child.as_mut().expect("it runs");
        let status = wait_until("the daemon's end", PATIENCE, || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// Runs the program with this device's configuration.
    pub fn cli<'a>(&self, arguments: impl IntoIterator<Item = &'a str>) -> Ended {
        let mut all: Vec<std::ffi::OsString> = arguments.into_iter().map(Into::into).collect();
        all.extend(["--config".into(), self.path("agent.toml").into()]);
        Edgewarden::run(all)
    }

    /// What it says of itself over its socket, once it answers.
    pub fn status(&self) -> DeviceStatus {
        wait_until("an answer of the local socket", PATIENCE, || {
            let ended = self.cli(["status", "--json"]);
            (ended.code == Some(0)).then(|| serde_json::from_str(&ended.stdout).unwrap())
        })
    }

    /// Process id of a child: `capture`, `infer`.
    pub fn child(&self, role: &str) -> u32 {
        let role = format!("{role}:{PIPELINE}");
        wait_until(&role, PATIENCE, || {
            self.status().metrics.processes.iter().find(|process| process.role == role).map(|found| found.pid)
        })
    }

    /// Sends a command; its replies are read from what is returned.
    pub fn send(&self, name: &str, arguments: Value) -> Sent<'_> {
        let operator = self.operator.as_ref().expect("a broker");
        let audience = Audience::Device(self.id.clone());
        let sent = operator.command(&audience, name, &arguments, PATIENCE);
        Sent { pending: self.tokio.block_on(sent).expect("send a command"), tokio: &self.tokio }
    }

    /// Its id.
    pub fn id(&self) -> &DeviceId {
        &self.id
    }

    /// Publishes a message as it is, below the device's topic.
    pub fn publish(&self, below: &str, payload: impl Into<Bytes>, retain: bool) {
        self.publish_to(format!("edgewarden/{}/{below}", self.id), payload, retain);
    }

    /// Publishes a message as it is.
    pub fn publish_to(&self, topic: String, payload: impl Into<Bytes>, retain: bool) {
        let message = edgewarden::mqtt::message::Message {
            topic,
            payload: payload.into(),
            retain,
            ..Default::default()
        };
        let operator = self.operator.as_ref().expect("a broker");
        self.tokio.block_on(operator.publish(message, PATIENCE)).expect("publish");
    }

    /// Sends a command and waits for its end; the first time also for the device.
    pub fn command(&self, name: &str, arguments: Value) -> Result<Value, Reason> {
        self.until("the device is online", |heard| heard.online().then_some(()));
        self.send(name, arguments).finish()
    }

    /// Updates the slot over MQTT.
    pub fn update(&self, release: &str) -> Result<Value, Reason> {
        self.command("update", json!({ "slot": SLOT, "release": release }))
    }

    /// Waits until what was heard gives a value.
    pub fn until<T>(&self, what: &str, mut found: impl FnMut(&Heard) -> Option<T>) -> T {
        wait_until(what, PATIENCE, || found(&self.heard.lock().unwrap()))
    }

    /// Forgets what was heard.
    pub fn forget(&self) {
        *self.heard.lock().unwrap() = Heard::default();
    }

    /// Waits for so many answered frames from now on.
    pub fn until_frames(&self, count: usize) {
        let before = self.heard.lock().unwrap().frames.len();
        self.until("answered frames", |heard| (heard.frames.len() >= before + count).then_some(()));
    }
}

impl Device {
    /// A killed agent's shared memory waits for its next start, which this one will not have.
    fn give_back_memory(&self) {
        let channel = FrameChannel {
            root: self.path("run").join("frames"),
            prefix: frames::prefix_of(&self.path("state")),
            pipeline: "any".parse().expect("a good name"),
            readers: 1,
            every: false,
        };
        // Its children end with it, within moments.
        for _ in 0..50 {
            if frames::remove(&channel).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        self.give_back_memory();
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            eprintln!("the daemon's last words:\n{}", lines[lines.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// A command under way.
pub struct Sent<'a> {
    pending: Pending,
    tokio: &'a tokio::runtime::Runtime,
}

impl Sent<'_> {
    /// Its end.
    pub fn finish(mut self) -> Result<Value, Reason> {
        self.tokio.block_on(self.pending.finish(PATIENCE))
    }
}

async fn listen(operator: Arc<Operator>, heard: Arc<Mutex<Heard>>) {
    loop {
        let Some(message) = operator.next(Duration::from_secs(3600)).await else { continue };
        if let Some(Topic::Said { said, .. }) = operator.topics().parse(&message.topic) {
            heard.lock().unwrap().take(said, &message);
        }
    }
}

/// Sends a signal.
pub fn signal(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid.try_into().unwrap()).unwrap();
    rustix::process::kill_process(pid, signal).expect("send a signal");
}

/// How a daemon ends that is expected to end at once, and what it said.
pub fn run_to_its_end(config: &Path) -> Ended {
    let (stdout, stderr) = (config.with_extension("out"), config.with_extension("err"));
    let mut child = Edgewarden::command()
        .arg("run")
        .arg("--config")
        .arg(config)
        .stdout(File::create(&stdout).unwrap())
        .stderr(File::create(&stderr).unwrap())
        .spawn()
        .expect("start the daemon");
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    for _ in 0..2 * PATIENCE.as_secs() {
        if let Some(status) = child.try_wait().unwrap() {
            return Ended { code: status.code(), stdout: text(&stdout), stderr: text(&stderr) };
        }
        std::thread::sleep(Duration::from_millis(500));
    }
    child.kill().unwrap();
    panic!("the daemon did not end by itself: {}", text(&stderr));
}
