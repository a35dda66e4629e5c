//! A bundle, loaded and ready: a frame goes in, an answer and the time of each stage come out.

use super::pixels::PixelDecoder;
use super::postprocess::{self, Context};
use super::preprocess::Preprocess;
use super::session::{Plan, Session};
use crate::bundle::OpenBundle;
use crate::bundle::model::{self, Ports};
use crate::domain::frame::FrameView;
use crate::domain::manifest::Provider;
use crate::domain::runtime::{ProviderShare, RuntimeSettings};
use crate::domain::{FrameFormat, Manifest, Output, Reason, ReasonCode, StageTimes};
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
    /// How much each provider runs, the largest share first.
    pub shares: Vec<ProviderShare>,
    /// True when the graph that an earlier start had optimised was used.
    pub saved_graph: bool,
}

/// A loaded bundle. Its memory is kept from frame to frame.
pub struct Engine {
    manifest: Manifest,
    size: (u32, u32),
    pixels: PixelDecoder,
    preprocess: Preprocess,
    session: Session,
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
        let Some((input, size)) = manifest.inputs.first().and_then(|input| Some((input, input.size()?)))
        else {
            return Err(named(Reason::new(ReasonCode::Malformed, "the manifest lists no picture input")));
        };
        let settings = settings.over(&manifest.runtime);
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
                input: input.name.clone(),
                shape: input.shape.clone(),
                element: input.element,
                outputs: outputs.into_iter().map(str::to_owned).collect(),
            })
        };
        let (mut session, chosen) = Session::load(bundle, &settings, plan).map_err(named)?;
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
        let context = Context { manifest, size };
        postprocess::check(context, &session.run().map_err(named)?.tensors().map_err(named)?)
            .map_err(named)?;
        let report = LoadReport {
            provider: chosen.provider,
            fallback: chosen.fallback,
            shares: chosen.shares,
            saved_graph: chosen.saved_graph,
            runtime_version: session.runtime_version().to_owned(),
            load_ms: milliseconds(start, Instant::now()),
        };
        Ok(Self {
            size,
            pixels: PixelDecoder::new()?,
            preprocess: Preprocess::new(input)?,
            manifest: manifest.clone(),
            session,
            report,
        })
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
    /// `BadRequest` for a frame that is no picture, `NotFinite` for an output with NaN or infinity,
    /// `Internal` when the runtime fails. The engine can go on with the next frame.
    pub fn run(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason> {
        let start = Instant::now();
        // Grey is cheaper to decode; a raw frame is taken as it is.
        let grey = self.preprocess.is_grey() && frame.meta.format == FrameFormat::Jpeg;
        let pixels = self.pixels.decode(frame, grey, |w, h| self.preprocess.needed((w, h)))?;
        let decoded = Instant::now();
        let geometry = self.preprocess.run(pixels, self.session.input()?)?;
        let prepared = Instant::now();
        let answer = self.session.run()?;
        let inferred = Instant::now();
        let context = Context { manifest: &self.manifest, size: self.size };
        let output = postprocess::decode(context, &answer.tensors()?, &geometry)?;
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
