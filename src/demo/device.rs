//! The device of the story: a real configuration file and the real daemon as a child process.

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use toml::{Table, Value};
use url::Url;

/// Name of the pipeline.
pub const PIPELINE: &str = "belt";
/// Name of the model slot.
pub const SLOT: &str = "inspector";
/// Frames a second that the device's camera gives.
pub const FPS: f32 = 20.0;
/// Pixels of the built-in camera.
pub const SIZE: (u32, u32) = (320, 240);
/// Answered frames of probation.
const PROBATION_FRAMES: i64 = 40;
/// Longest wait for the daemon to end by itself.
const PATIENCE: Duration = Duration::from_secs(15);
/// Lines of the daemon's log that are shown when it ends unasked.
const LAST_WORDS: usize = 8;

/// What the configuration is written from.
#[derive(Debug)]
pub struct Setup<'a> {
    /// The device's id.
    pub id: &'a str,
    /// Folder for the state and the configuration.
    pub folder: &'a Path,
    /// Folder for the local socket; its path must be short.
    pub runtime: &'a Path,
    /// `libonnxruntime.so`.
    pub library: &'a Path,
    /// The broker.
    pub broker: &'a Url,
    /// The repository.
    pub repository: &'a Url,
    /// The root metadata that the device pins.
    pub root: &'a Path,
    /// Seed of the belt.
    pub seed: u64,
    /// A folder of pictures to look at instead.
    pub frames: Option<&'a Path>,
}

impl Setup<'_> {
    /// The text of `agent.toml`.
    pub fn text(&self) -> anyhow::Result<String> {
        let source = match self.frames {
            Some(folder) => {
                table([("kind", "folder".into()), ("path", path(folder)?), ("repeat", true.into())])
            }
            None => table([
                ("kind", "synthetic".into()),
                ("seed", i64::try_from(self.seed).context("--seed is too large")?.into()),
                ("width", i64::from(SIZE.0).into()),
                ("height", i64::from(SIZE.1).into()),
            ]),
        };
        let pipeline = table([
            ("name", PIPELINE.into()),
            ("slot", SLOT.into()),
            ("fps", f64::from(FPS).into()),
            ("source", source.into()),
        ]);
        let config = table([
            ("device", table([("id", self.id.into())]).into()),
            (
                "paths",
                table([("state", path(&self.folder.join("state"))?), ("runtime", path(self.runtime)?)])
                    .into(),
            ),
            ("runtime", table([("library", path(self.library)?), ("providers", vec!["cpu"].into())]).into()),
            (
                "mqtt",
                // Every result is published: the story measures on all of them.
                table([("url", self.broker.as_str().into()), ("results_per_second", 1000.0.into())]).into(),
            ),
            (
                "repository",
                table([("url", self.repository.as_str().into()), ("root", path(self.root)?)]).into(),
            ),
            (
                "update",
                table([
                    ("probation_frames", PROBATION_FRAMES.into()),
                    ("probation_min", "1s".into()),
                    ("probation_max", "60s".into()),
                    ("max_error_ratio", 0.1.into()),
                    // Other programs use this machine too: only a grossly slower model is too slow.
                    ("slow_floor_ms", 250.0.into()),
                    ("disk_reserve", "16MiB".into()),
                ])
                .into(),
            ),
            ("health", table([("interval", "1s".into())]).into()),
            ("pipeline", Value::Array(vec![pipeline.into()])),
        ]);
        toml::to_string(&config).context("write agent.toml")
    }
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Table {
    entries.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn path(path: &Path) -> anyhow::Result<Value> {
    let text = path.to_str().with_context(|| format!("the path {} is not UTF-8", path.display()))?;
    Ok(text.into())
}

/// The daemon; it is killed when this is dropped.
pub struct Device {
    program: PathBuf,
    config: PathBuf,
    log: PathBuf,
    child: Option<Child>,
}

impl Device {
    /// Writes the configuration; starts nothing yet. `program` is this very program.
    pub fn new(program: PathBuf, setup: &Setup<'_>) -> anyhow::Result<Self> {
        let config = setup.folder.join("agent.toml");
        fs::write(&config, setup.text()?).with_context(|| format!("write {}", config.display()))?;
        Ok(Self { program, config, log: setup.folder.join("agent.log"), child: None })
    }

    /// Starts the daemon; its log is added to `agent.log`.
    pub fn start(&mut self) -> anyhow::Result<()> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("write {}", self.log.display()))?;
        let child = Command::new(&self.program)
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share the daemon's log")?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("start {} run", self.program.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Process id while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Fails with its last words when the daemon has ended by itself.
    pub fn check(&mut self) -> anyhow::Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        let Some(status) = child.try_wait().context("watch the daemon")? else { return Ok(()) };
        self.child = None;
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_WORDS)..].join(" / ");
        bail!("the daemon ended by itself ({status}); its last words: {last}")
    }

    /// `kill -9`, as the power cut of a process.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        let Some(mut child) = self.child.take() else { bail!("the daemon does not run") };
        child.kill().context("kill the daemon")?;
        child.wait().context("wait for the killed daemon")?;
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits; kills it when it takes too long, and then gives `None`.
    pub fn stop(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        let Some(mut child) = self.child.take() else { return Ok(None) };
        let pid = Pid::from_child(&child);
        kill_process(pid, Signal::TERM).context("ask the daemon to end")?;
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = child.try_wait().context("wait for the daemon")? {
                return Ok(Some(status));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        child.kill().context("kill the daemon")?;
        child.wait().context("wait for the killed daemon")?;
        Ok(None)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{self, Surroundings};
    use crate::domain::source::SourceSettings;

    fn settings(frames: Option<&Path>) -> config::Settings {
        let setup = Setup {
            id: "demo-1",
            folder: Path::new("/tmp/a \"quoted\" folder"),
            runtime: Path::new("/tmp/run"),
            library: Path::new("/lib/libonnxruntime.so"),
            broker: &Url::parse("mqtt://127.0.0.1:4000").unwrap(),
            repository: &Url::parse("http://127.0.0.1:4001/").unwrap(),
            root: Path::new("/tmp/root.json"),
            seed: 7,
            frames,
        };
        config::from_text(&setup.text().unwrap(), Path::new("/tmp"), &Surroundings::default()).unwrap()
    }

    #[test]
    fn the_configuration_is_one_that_the_daemon_takes() {
        let read = settings(None);
        assert_eq!(read.paths.state, Path::new("/tmp/a \"quoted\" folder/state"));
        assert_eq!(read.mqtt.unwrap().port, 4000);
        assert_eq!(read.update.probation_frames, PROBATION_FRAMES as u64);
        assert_eq!(read.pipelines.len(), 1);
        assert_eq!(
            read.pipelines[0].source,
            SourceSettings::Synthetic { seed: 7, width: SIZE.0, height: SIZE.1 }
        );
    }

    #[test]
    fn a_folder_of_pictures_takes_the_cameras_place() {
        let read = settings(Some(Path::new("/srv/pictures")));
        let wanted = SourceSettings::Folder { path: "/srv/pictures".into(), repeat: true };
        assert_eq!(read.pipelines[0].source, wanted);
    }

    #[test]
    fn a_daemon_that_ends_by_itself_is_noticed_with_its_last_words() {
        let folder = tempfile::tempdir().unwrap();
        let mut device = Device {
            program: "/bin/echo".into(),
            config: folder.path().join("agent.toml"),
            log: folder.path().join("agent.log"),
            child: None,
        };
        device.start().unwrap();
        let began = Instant::now();
        let error = loop {
            match device.check() {
                Err(error) => break error.to_string(),
                Ok(()) => assert!(began.elapsed() < PATIENCE, "echo did not end"),
            }
        };
        assert!(error.contains("run --config"), "{error}");
    }
}
