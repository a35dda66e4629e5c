//! A bundle, loaded and ready: a frame goes in, an answer and the time of each stage come out.

use super::feed::Feed;
use super::postprocess::Decoding;
use super::session::{Plan, Session};
use crate::bundle::OpenBundle;
use crate::bundle::model::{self, Ports};
use crate::domain::frame::FrameView;
use crate::domain::manifest::Provider;
use crate::domain::runtime::RuntimeSettings;
use crate::domain::{Manifest, Output, Reason, ReasonCode, StageTimes};
use std::time::Instant;

/// What loading showed.
#[derive(Debug, Clone, PartialEq)]
pub struct LoadReport {
    /// The provider that really runs the model.
    pub provider: Provider,
    /// Set when that is not the first one that was asked for: why.
    pub fallback: Option<String>,
    /// Milliseconds from file to ready, the first run included.
    pub load_ms: f32,
    /// Version of ONNX Runtime.
    pub runtime_version: String,
}

/// A loaded bundle. Its memory is kept from frame to frame.
pub struct Engine {
    manifest: Manifest,
    feed: Feed,
    session: Session,
    decoding: Decoding,
    report: LoadReport,
}

impl Engine {
    /// Loads the model of a bundle, runs it once, and compares what it wants and gives with the manifest.
    ///
    /// # Errors
    /// `LoadFailed` where the runtime, the model or the manifest do not fit each other; `Unsupported`
    /// where the model is newer than the runtime or no wanted provider runs it.
    pub fn load(bundle: &OpenBundle, settings: &RuntimeSettings) -> Result<Self, Reason> {
        let start = Instant::now();
        let manifest = &bundle.manifest;
        let named = |reason: Reason| {
            Reason::new(reason.code, format!("bundle {}: {}", manifest.release(), reason.detail))
        };
        let Some((name, shape, element)) = manifest.input() else {
            return Err(named(Reason::new(ReasonCode::Malformed, "the manifest lists no input")));
        };
        let mut settings = settings.clone();
        settings.intra_threads = settings.intra_threads.or(manifest.runtime.intra_threads);
        let plan = |ports: &Ports| {
            let faults = model::disagreements(manifest, ports);
            if !faults.is_empty() {
                return Err(Reason::new(
                    ReasonCode::LoadFailed,
                    format!("the manifest disagrees with the model: {}", faults.join("; ")),
                ));
            }
            let outputs = model::wanted_outputs(&manifest.decode, ports);
            Ok(Plan {
                input: name.to_owned(),
                shape: shape.to_vec(),
                element,
                outputs: outputs.into_iter().map(str::to_owned).collect(),
            })
        };
        let (mut session, chosen) = Session::load(&bundle.model(), &settings, plan).map_err(named)?;
        let wanted = &manifest.needs.providers;
        if !wanted.is_empty() && !wanted.contains(&chosen.provider) {
            let wanted: Vec<_> = wanted.iter().map(|provider| provider.as_str()).collect();
            let why = chosen.fallback.map(|why| format!(" ({why})")).unwrap_or_default();
            return Err(named(Reason::new(
                ReasonCode::Unsupported,
                format!(
                    "it needs provider {}, this device runs {}{why}",
                    wanted.join(" or "),
                    chosen.provider.as_str()
                ),
            )));
        }
        let decoding = Decoding::of(manifest);
        decoding.check(&session.run().map_err(named)?.tensors().map_err(named)?).map_err(named)?;
        let report = LoadReport {
            provider: chosen.provider,
            fallback: chosen.fallback,
            runtime_version: session.runtime_version().to_owned(),
            load_ms: milliseconds(start, Instant::now()),
        };
        Ok(Self { feed: Feed::of(manifest)?, manifest: manifest.clone(), session, decoding, report })
    }

    /// What loading showed.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Answers one frame.
    ///
    /// # Errors
    /// `BadRequest` for a frame that is not what the model takes, `NotFinite` for an output with NaN or infinity,
    /// `Internal` when the runtime fails. The engine can go on with the next frame.
    pub fn run(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason> {
        let start = Instant::now();
        let (geometry, decoded) = self.feed.write(frame, || self.session.input())?;
        if self.decoding.wants_input() {
            self.decoding.see_input(&self.session.input()?);
        }
        let prepared = Instant::now();
        let answer = self.session.run()?;
        let inferred = Instant::now();
        let output = self.decoding.decode(&answer.tensors()?, &geometry)?;
        let times = StageTimes {
            decode: milliseconds(start, decoded),
            preprocess: milliseconds(decoded, prepared),
            infer: milliseconds(prepared, inferred),
            postprocess: milliseconds(inferred, Instant::now()),
        };
        Ok((output, times))
    }

    /// Runs the bare model on whatever its input holds from the last frame, for measuring; milliseconds.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_bare(&mut self) -> Result<f32, Reason> {
        let start = Instant::now();
        self.session.run()?;
        Ok(milliseconds(start, Instant::now()))
    }
}

fn milliseconds(from: Instant, to: Instant) -> f32 {
    to.duration_since(from).as_secs_f32() * 1e3
}
