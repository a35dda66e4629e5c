//! A whole device: the real daemon with folders of its own, what it says on MQTT, and a repository that
//! it pulls from.

mod heard;
mod options;
mod repository;

pub use heard::Heard;
pub use options::Options;
pub use repository::{Repository, copy_tree, model, release, variant};

use super::{Edgewarden, Ended, wait_until};
use bytes::Bytes;
use edgewarden::domain::status::DeviceStatus;
use edgewarden::domain::{DeviceId, Reason};
use edgewarden::mqtt::operator::{Operator, Pending};
use edgewarden::mqtt::topics::{Audience, Topic, Topics};
use edgewarden::process::frames;
use edgewarden::process::protocol::FrameChannel;
use serde_json::{Value, json};
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

    /// The newest 200 lines of its audit log, the chain of which is whole; `None` while it cannot be read.
    pub fn audit_log(&self) -> Option<Vec<Value>> {
        let ended = self.cli(["audit", "--json", "-n", "200"]);
        let Ok(answer) = serde_json::from_str::<Value>(&ended.stdout) else {
            eprintln!("no audit log: {ended:?}");
            return None;
        };
        assert_eq!(answer["verified"], true, "{answer:#}");
        answer["entries"].as_array().cloned()
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
