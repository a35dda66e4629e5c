//! The story, step by step, against a real broker, a real repository and the real daemon.

use super::broker::Broker;
use super::device::{Device, FPS, PIPELINE, SLOT, Setup};
use super::models::{self, Model};
use super::observer::Observer;
use super::report::{Narrator, Outcome, Report, Served, Step, Told};
use super::seen::{Ended, Heard, Measured, Seen};
use super::web::Web;
use crate::bundle::{self, layout};
use crate::domain::deployment::Stage;
use crate::domain::{CommandId, DeviceId, FrameResult, Reason, ReasonCode, Release};
use crate::inference::source::scene::truth;
use crate::mqtt::payloads::ReplyStatus;
use crate::trust::publish::{InitOptions, Publisher};
use anyhow::{Context, bail, ensure};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use url::Url;

/// Longest wait for anything that the story expects.
const PATIENCE: Duration = Duration::from_secs(90);
/// A failed deployment's state follows the reply within this time.
const STATE_AFTER_REPLY: Duration = Duration::from_secs(5);
/// Between two changes of the live line.
const REDRAW: Duration = Duration::from_millis(150);
/// By so much must v2 be better than v1.
const LEAST_GAIN: f64 = 0.05;
/// So much may one measurement of a model be below another one of it: other parts pass by.
const LUCK: f64 = 0.10;
/// Bytes a second while the daemon is to be caught in the middle of a fetch.
const SLOW: u64 = 60_000;
/// Bytes of the fetch that have arrived when the daemon is killed.
const KILL_AFTER: u64 = 40_000;

/// How the story is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// This very program.
    pub program: PathBuf,
    /// `libonnxruntime.so`.
    pub library: PathBuf,
    /// Folder with the demo's bundles.
    pub models: PathBuf,
    /// Folder for everything that is written; empty or not there yet.
    pub folder: PathBuf,
    /// Folder for the local socket; its path must be short.
    pub runtime: PathBuf,
    /// A broker to use; else mosquitto is started.
    pub broker: Option<Url>,
    /// Seed of the belt.
    pub seed: u64,
    /// How long each model is measured.
    pub watch: Duration,
    /// A folder of pictures to look at, instead of the belt.
    pub frames: Option<PathBuf>,
}

/// Tells the whole story. A step that does not happen ends it; the report says which and why.
pub async fn tell(options: Options, narrator: &mut dyn Narrator) -> Report {
    let mut report = Report::default();
    let mut scene = None;
    for step in Step::ALL {
        let began = Instant::now();
        if report.steps.iter().any(|told| told.outcome != Outcome::Happened) {
            let detail = "a step before it did not happen".to_owned();
            report.steps.push(Told { step, outcome: Outcome::NotReached, detail, seconds: 0.0 });
            continue;
        }
        narrator.begin(step);
        let (outcome, detail) = match play(step, &options, &mut scene, &mut report, narrator).await {
            Ok(detail) => (Outcome::Happened, detail),
            Err(error) => (Outcome::Failed, one_line(&error)),
        };
        let told = Told { step, outcome, detail, seconds: began.elapsed().as_secs_f32() };
        narrator.end(&told);
        report.steps.push(told);
    }
    if let Some(mut scene) = scene {
        // What the steps did not need is not judged, but said.
        match scene.device.stop() {
            Ok(Some(status)) if status.success() => {}
            Ok(Some(status)) => narrator.note(&format!("the daemon ended with {status}")),
            Ok(None) => narrator.note("the daemon had to be killed at the end"),
            Err(error) => narrator.note(&one_line(&error)),
        }
    }
    report.complete = report.steps.iter().all(|told| told.outcome == Outcome::Happened);
    report
}

fn one_line(error: &anyhow::Error) -> String {
    let causes: Vec<String> = error.chain().map(ToString::to_string).collect();
    causes.join(": ").replace(['\n', '\r'], " ")
}

async fn play(
    step: Step,
    options: &Options,
    scene: &mut Option<Scene>,
    report: &mut Report,
    narrator: &mut dyn Narrator,
) -> anyhow::Result<String> {
    if step == Step::Start {
        let (ready, detail) = Scene::set(options, narrator).await?;
        *scene = Some(ready);
        return Ok(detail);
    }
    let scene = scene.as_mut().context("the story has not started")?;
    match step {
        Step::Start => bail!("the story has started already"),
        Step::FirstModel => scene.first_model(report, narrator).await,
        Step::BetterModel => scene.better_model(report, narrator).await,
        Step::NoFrameLost => scene.no_frame_lost(report, narrator).await,
        Step::WrongAnswers => scene.wrong_answers(narrator).await,
        Step::FailsLive => scene.fails_live(report, narrator).await,
        Step::Tampered => scene.tampered(narrator).await,
        Step::Killed => scene.killed(report, narrator).await,
    }
}

/// Everything that plays a part.
struct Scene {
    device: Device,
    observer: Observer,
    web: Web,
    /// Folder with the bundles.
    models: PathBuf,
    /// Ends when the story does.
    _broker: Broker,
    seen: Seen,
    seed: u64,
    /// False for the user's own pictures.
    truth_known: bool,
    watch: Duration,
    last_live: Instant,
    last_stage: Option<(Release, Stage)>,
}

impl Scene {
    async fn set(options: &Options, narrator: &mut dyn Narrator) -> anyhow::Result<(Self, String)> {
        let folder = &options.folder;
        fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;

        let broker = match &options.broker {
            Some(url) => Broker::existing(url.clone()),
            None => Broker::start(&folder.join("broker"))?,
        };
        narrator.note(&format!("broker: {}", broker.description));

        let (repository, work, bundles) = (folder.join("repository"), folder.clone(), options.models.clone());
        let root =
            tokio::task::spawn_blocking(move || publish(&work, &bundles)).await.context("publish")??;
        let web = Web::start(&repository).await?;
        narrator.note(&format!("repository: {} releases, signed, served on {}", models::ALL.len(), web.url));

        // Two demos on one broker must not meet.
        let id: DeviceId = format!("demo-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]).parse()?;
        let observer = Observer::connect(&broker.url, &id).await?;
        let setup = Setup {
            id: id.as_str(),
            folder,
            runtime: &options.runtime,
            library: &options.library,
            broker: &broker.url,
            repository: &web.url,
            root: &root,
            seed: options.seed,
            frames: options.frames.as_deref(),
        };
        let mut device = Device::new(options.program.clone(), &setup)?;
        device.start()?;
        let mut scene = Self {
            device,
            observer,
            web,
            models: options.models.clone(),
            _broker: broker,
            seen: Seen::default(),
            seed: options.seed,
            truth_known: options.frames.is_none(),
            watch: options.watch,
            last_live: Instant::now(),
            last_stage: None,
        };
        scene.until("the device comes online", narrator, |seen| seen.online.then_some(())).await?;
        let pid = scene.device.pid().unwrap_or_default();
        let looks_at = match &options.frames {
            Some(folder) => format!("the pictures in {}", folder.display()),
            None => format!("a belt with known truth (seed {})", options.seed),
        };
        Ok((scene, format!("{id} is online (process {pid}) and looks at {looks_at}")))
    }

    async fn first_model(
        &mut self,
        report: &mut Report,
        narrator: &mut dyn Narrator,
    ) -> anyhow::Result<String> {
        let release = models::V1.release()?;
        self.expect_committed(&release, narrator).await?;
        let measured = self.measure(narrator).await?;
        let told = figures(&measured);
        report.models.push(Served { release: release.to_string(), measured });
        Ok(told)
    }

    async fn better_model(
        &mut self,
        report: &mut Report,
        narrator: &mut dyn Narrator,
    ) -> anyhow::Result<String> {
        // Figures from before the first frame of the stretch, and from after its last one.
        self.fresh_metrics(narrator).await?;
        self.seen.begin_stretch();
        let release = models::V2.release()?;
        self.expect_committed(&release, narrator).await?;
        let measured = self.measure(narrator).await?;
        let told = figures(&measured);
        let before = report.models.last().and_then(|served| served.measured.f1);
        if let (Some(before), Some(after)) = (before, measured.f1) {
            ensure!(
                after >= before + LEAST_GAIN,
                "F1 was {before:.2} with v1 and is {after:.2} with v2: it did not rise by {LEAST_GAIN}"
            );
        }
        report.models.push(Served { release: release.to_string(), measured });
        Ok(match before {
            Some(before) => format!("{told}; it was F1 {before:.2}"),
            None => told,
        })
    }

    async fn no_frame_lost(
        &mut self,
        report: &mut Report,
        narrator: &mut dyn Narrator,
    ) -> anyhow::Result<String> {
        // The accounts are drawn up when the next figures arrive: those of all answers until now.
        self.fresh_metrics(narrator).await?;
        let accounts = self.seen.accounts();
        report.swap = Some(accounts);
        ensure!(accounts.answered > 0, "no frame was answered around the swap");
        ensure!(
            accounts.lost() == 0,
            "{} of {} frames were neither answered nor counted",
            accounts.lost(),
            accounts.frames
        );
        Ok(format!(
            "{} frames from before to after: {} answered, {} skipped and counted, 0 lost",
            accounts.frames, accounts.answered, accounts.gaps
        ))
    }

    async fn wrong_answers(&mut self, narrator: &mut dyn Narrator) -> anyhow::Result<String> {
        let ended = self.update(&models::V3.release()?, narrator).await?;
        let reason = expect(&ended, Stage::Refused)?;
        ensure!(
            reason.code == ReasonCode::GoldenMismatch,
            "refused, but not for its wrong answers: {reason}"
        );
        self.expect_current(&models::V2.release()?)?;
        Ok(reason.to_string())
    }

    async fn fails_live(&mut self, report: &Report, narrator: &mut dyn Narrator) -> anyhow::Result<String> {
        let (good, bad) = (models::V2.release()?, models::V4.release()?);
        let ended = self.update(&bad, narrator).await?;
        if !self.truth_known && ended.stage == Stage::Committed {
            // Its fault shows on busy belts only, and these are the user's pictures.
            self.observer.command("rollback", json!({ "slot": SLOT })).await?;
            self.until("the rollback", narrator, |seen| (seen.current() == Some(&good)).then_some(()))
                .await?;
            return Ok("your pictures do not show its fault, so an operator's command rolled it back".into());
        }
        let reason = expect(&ended, Stage::RolledBack)?;
        self.expect_current(&good)?;
        let again = self.measure(narrator).await?;
        expect_as_good(report, &again)?;
        Ok(format!("{reason}; v2 serves again, {}", figures(&again)))
    }

    async fn tampered(&mut self, narrator: &mut dyn Narrator) -> anyhow::Result<String> {
        let blob = self.web.folder.join(model_blob(models::V5, &self.models)?);
        flip_a_byte(&blob)?;
        narrator.note("somebody with access to the web server changes one byte of v5's model");
        let ended = self.update(&models::V5.release()?, narrator).await?;
        let reason = expect(&ended, Stage::Refused)?;
        ensure!(reason.code.is_trust(), "refused, but not because of the changed byte: {reason}");
        self.expect_current(&models::V2.release()?)?;
        flip_a_byte(&blob)?;
        Ok(reason.to_string())
    }

    async fn killed(&mut self, report: &mut Report, narrator: &mut dyn Narrator) -> anyhow::Result<String> {
        let (good, wanted) = (models::V2.release()?, models::V5.release()?);
        let before = self.seen.deployment();
        let (sent, resumed) = (self.web.sent(), self.web.resumed());
        self.web.limit(Some(SLOW));
        narrator.note("the byte is put back; the link is now slow");
        self.command_update(&wanted).await?;
        let web_sent = |web: &Web| web.sent().saturating_sub(sent);
        let deadline = Instant::now() + PATIENCE;
        while web_sent(&self.web) < KILL_AFTER {
            ensure!(Instant::now() < deadline, "the fetch of {wanted} did not begin within {PATIENCE:?}");
            self.hear_for(Duration::from_millis(20), narrator).await?;
            let over = self.seen.ended(&wanted, before.as_ref());
            ensure!(over.is_none(), "the update was over before the daemon could be killed: {over:?}");
        }
        self.device.kill()?;
        narrator.note(&format!("kill -9 after {} KB of the fetch", web_sent(&self.web) / 1000));
        // The broker tells of the death by itself (the last will); what it keeps is from before.
        self.until("the broker tells that the device is gone", narrator, |seen| (!seen.online).then_some(()))
            .await?;
        self.web.limit(None);
        self.seen.slot = None;
        self.device.start()?;
        self.until("the device is back", narrator, |seen| (seen.online && seen.slot.is_some()).then_some(()))
            .await?;
        narrator.note("started again; it finds the update in its journal");
        let ended = self
            .until("the update ends after the restart", narrator, |seen| seen.ended(&wanted, before.as_ref()))
            .await?;
        let serves = if ended.stage == Stage::Committed { &wanted } else { &good };
        self.expect_current(serves)?;
        let measured = self.measure(narrator).await?;
        expect_as_good(report, &measured)?;
        let how = match (&ended.reason, self.web.resumed() - resumed) {
            (None, 0) => "finished the update".to_owned(),
            (None, _) => "went on with the fetch where it had stopped and finished the update".to_owned(),
            (Some(reason), _) => format!("gave the update up ({reason})"),
        };
        let told = format!("it {how}; {serves} serves, {}", figures(&measured));
        report.models.push(Served { release: serves.to_string(), measured });
        Ok(told)
    }

    // ---- what the steps are made of ----

    async fn command_update(&mut self, release: &Release) -> anyhow::Result<CommandId> {
        Ok(self.observer.command("update", json!({ "slot": SLOT, "release": release })).await?)
    }

    /// Commands an update and waits for its end.
    async fn update(&mut self, release: &Release, narrator: &mut dyn Narrator) -> anyhow::Result<Ended> {
        let before = self.seen.deployment();
        let id = self.command_update(release).await?;
        narrator.note(&format!("MQTT command update: {SLOT} to {release}"));
        let mut failed = None;
        self.until(&format!("the end of the update to {release}"), narrator, |seen| {
            match (seen.ended(release, before.as_ref()), seen.replies.get(&id)) {
                (Some(ended), _) => Some(ended),
                // A command that is refused makes no deployment; its reply is all there will be.
                (None, Some(ReplyStatus::Failed { reason })) => {
                    let since = failed.get_or_insert_with(Instant::now);
                    let ended = Ended { stage: Stage::Refused, reason: Some(reason.clone()) };
                    (since.elapsed() > STATE_AFTER_REPLY).then_some(ended)
                }
                (None, _) => None,
            }
        })
        .await
    }

    async fn expect_committed(
        &mut self,
        release: &Release,
        narrator: &mut dyn Narrator,
    ) -> anyhow::Result<()> {
        let ended = self.update(release, narrator).await?;
        if let (Stage::Refused | Stage::RolledBack, Some(reason)) = (ended.stage, &ended.reason) {
            bail!("{release} was not committed: {reason}");
        }
        ensure!(ended.stage == Stage::Committed, "{release} ended as {:?}", ended.stage);
        self.expect_current(release)
    }

    fn expect_current(&self, release: &Release) -> anyhow::Result<()> {
        let current = self.seen.current().map_or("nothing".to_owned(), ToString::to_string);
        ensure!(self.seen.current() == Some(release), "{current} serves, not {release}");
        Ok(())
    }

    /// Measures what serves for as long as the user wants.
    async fn measure(&mut self, narrator: &mut dyn Narrator) -> anyhow::Result<Measured> {
        self.seen.measure();
        let began = Instant::now();
        let (watch, least) = (self.watch, (self.watch.as_secs_f32() * FPS / 4.0).ceil() as usize);
        self.until("enough answers for a measurement", narrator, |seen| {
            (began.elapsed() >= watch && seen.count() >= least).then_some(())
        })
        .await?;
        Ok(self.seen.measured())
    }

    async fn fresh_metrics(&mut self, narrator: &mut dyn Narrator) -> anyhow::Result<()> {
        let reports = self.seen.reports;
        self.until("the device's figures", narrator, |seen| (seen.reports > reports).then_some(())).await
    }

    /// Hears the device until `done` finds what it waits for.
    async fn until<T>(
        &mut self,
        what: &str,
        narrator: &mut dyn Narrator,
        mut done: impl FnMut(&Seen) -> Option<T>,
    ) -> anyhow::Result<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = done(&self.seen) {
                return Ok(found);
            }
            ensure!(Instant::now() < deadline, "{what}: did not happen within {PATIENCE:?}");
            self.hear_for(Duration::from_millis(100), narrator).await?;
        }
    }

    /// Takes in one message, or none in this time.
    async fn hear_for(&mut self, time: Duration, narrator: &mut dyn Narrator) -> anyhow::Result<()> {
        self.device.check()?;
        let Some(heard) = self.observer.next(time).await? else { return Ok(()) };
        if let Heard::Slot(state) = &heard
            && let Some(deployment) = &state.deployment
        {
            let stage = (deployment.release.clone(), deployment.stage);
            if self.last_stage.as_ref() != Some(&stage) {
                narrator.note(&format!("{}: {}", deployment.release, stage_name(deployment.stage)));
                self.last_stage = Some(stage);
            } else if let Some(done) = deployment.progress {
                let name = stage_name(deployment.stage);
                narrator.live(&format!("{}: {name} {:.0} %", deployment.release, done * 100.0));
            }
        }
        let is_frame = matches!(heard, Heard::Frame(_));
        let (seed, known) = (self.seed, self.truth_known);
        self.seen.hear(heard, |frame| known.then(|| truth(seed, frame.seq, frame.size[0], frame.size[1])));
        if is_frame && self.last_live.elapsed() >= REDRAW {
            self.last_live = Instant::now();
            if let Some(line) = self.live_line() {
                narrator.live(&line);
            }
        }
        Ok(())
    }

    fn live_line(&self) -> Option<String> {
        let frame: &FrameResult = self.seen.frame.as_ref()?;
        let mut counts = std::collections::BTreeMap::new();
        for detection in &frame.output.detections {
            *counts.entry(detection.label.as_str()).or_insert(0u32) += 1;
        }
        let parts: Vec<String> = counts.iter().map(|(label, count)| format!("{count} {label}")).collect();
        let current = self.seen.current().map(ToString::to_string).unwrap_or_default();
        let measured = self.seen.measured();
        let accuracy = measured.f1.map(|f1| format!("F1 {f1:.2}  ")).unwrap_or_default();
        Some(format!(
            "{PIPELINE} frame {}  {current}  {:.1}/s  {accuracy}{:.1} ms  {}",
            frame.seq,
            measured.fps,
            frame.latency_ms,
            parts.join(", ")
        ))
    }
}

/// Makes keys and a repository, and publishes every bundle; gives the root to be pinned.
fn publish(folder: &Path, models: &Path) -> anyhow::Result<PathBuf> {
    let now = jiff::Timestamp::now();
    let repository = folder.join("repository");
    let mut publisher = Publisher::init(&repository, &folder.join("keys"), InitOptions::default(), now)?;
    for model in models::ALL {
        publisher.publish(&model.folder(models), jiff::Timestamp::now(), &|_| {})?;
    }
    Ok(publisher.pinned_root())
}

/// Where the repository keeps a bundle's model.
fn model_blob(model: Model, models: &Path) -> anyhow::Result<String> {
    let (manifest, _) = bundle::read(&model.folder(models))?;
    let file = manifest.files.iter().find(|file| file.path == manifest.model);
    Ok(layout::blob(&file.context("a demo bundle names no model")?.sha256))
}

/// Changes one byte in the middle of a file; once more puts it back.
fn flip_a_byte(path: &Path) -> anyhow::Result<()> {
    let mut bytes = fs::read(path).with_context(|| format!("read {}", path.display()))?;
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).with_context(|| format!("{} is empty", path.display()))? ^= 1;
    fs::write(path, bytes).with_context(|| format!("write {}", path.display()))
}

fn expect(ended: &Ended, stage: Stage) -> anyhow::Result<Reason> {
    let reason = ended.reason.clone();
    let why = reason.as_ref().map(ToString::to_string).unwrap_or_default();
    ensure!(
        ended.stage == stage,
        "expected {}, but it ended as {} {why}",
        stage_name(stage),
        stage_name(ended.stage)
    );
    reason.with_context(|| format!("{} without a reason", stage_name(stage)))
}

/// Fails where what serves is worse than v2 was.
fn expect_as_good(report: &Report, now: &Measured) -> anyhow::Result<()> {
    let v2 = models::V2.release()?.to_string();
    let was = report.models.iter().find(|served| served.release == v2).and_then(|s| s.measured.f1);
    if let (Some(was), Some(is)) = (was, now.f1) {
        ensure!(is >= was - LUCK, "F1 was {was:.2} with v2 and is {is:.2} now");
    }
    Ok(())
}

fn figures(measured: &Measured) -> String {
    let accuracy = measured.f1.map(|f1| format!("F1 {f1:.2}, ")).unwrap_or_default();
    let stages = &measured.stages_ms;
    format!(
        "{accuracy}{:.1} frames/s, {:.1} ms from capture to answer (decode {:.1}, resize {:.1}, model {:.1}, boxes {:.1})",
        measured.fps, measured.latency_ms, stages.decode, stages.preprocess, stages.infer, stages.postprocess
    )
}

/// A stage as it is written in payloads.
fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Resolving => "resolving",
        Stage::Fetching => "fetching",
        Stage::Verifying => "verifying",
        Stage::Staged => "staged",
        Stage::OnTrial => "on trial",
        Stage::Shadowing => "in the shadow",
        Stage::Swapping => "swapping",
        Stage::Probation => "in probation",
        Stage::Committed => "committed",
        Stage::RollingBack => "rolling back",
        Stage::RolledBack => "rolled back",
        Stage::Refused => "refused",
    }
}
