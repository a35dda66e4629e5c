//! A bundle, loaded and ready: a frame goes in, an answer and the time of each stage come out.
//!
//! An engine has two halves that can be split: the [`Preparer`] brings a frame into an input tensor, the
//! [`Executor`] runs the model on it and decodes what comes out. Who has a core to spare gives each a thread
//! and lets two tensors take turns. After the first frames neither allocates memory; the answer itself
//! is the only thing that is made anew (`tests/allocations.rs` counts).

use super::graph_cache::ModelFile;
use super::postprocess::Decoding;
use super::preparer::milliseconds;
pub use super::preparer::{Prepared, Preparer};
use super::session::{Input, Plan, Session, Views};
use crate::bundle::OpenBundle;
use crate::bundle::model::{self, Ports};
use crate::domain::frame::FrameView;
use crate::domain::manifest::{JpegDetail, Provider};
use crate::domain::runtime::{ProviderShare, RuntimeSettings};
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
    /// How much each provider runs, the largest share first.
    pub shares: Vec<ProviderShare>,
    /// True when the graph that an earlier start had optimised was used.
    pub saved_graph: bool,
}

/// A loaded bundle. Its memory is kept from frame to frame.
pub struct Engine {
    preparer: Preparer,
    executor: Executor,
    report: LoadReport,
}

/// The half of an engine that runs the model.
pub struct Executor {
    manifest: Manifest,
    session: Session,
    views: Views,
    decoding: Decoding,
}

impl Engine {
    /// Loads the model of a bundle, runs it once, and compares what it wants and gives with the manifest.
    ///
    /// # Errors
    /// `LoadFailed` where the runtime, the model or the manifest do not fit each other; `Unsupported`
    /// where the model is newer than the runtime or no wanted provider runs it; as
    /// [`OpenBundle::secret_model`] for an encrypted one.
    pub fn load(bundle: &OpenBundle, settings: &RuntimeSettings) -> Result<Self, Reason> {
        let start = Instant::now();
        let manifest = &bundle.manifest;
        let named = |reason: Reason| {
            Reason::new(reason.code, format!("bundle {}: {}", manifest.release(), reason.detail))
        };
        let Some((name, shape, element)) = manifest.input() else {
            return Err(named(Reason::new(ReasonCode::Malformed, "the manifest lists no input")));
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
                input: name.to_owned(),
                shape: shape.to_vec(),
                element,
                outputs: outputs.into_iter().map(str::to_owned).collect(),
            })
        };
        let (mut session, chosen) = Session::load(ModelFile::of(bundle)?, &settings, plan).map_err(named)?;
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
            shares: chosen.shares,
            saved_graph: chosen.saved_graph,
            runtime_version: session.runtime_version().to_owned(),
            load_ms: milliseconds(start, Instant::now()),
        };
        let executor = Executor { manifest: manifest.clone(), session, views: Views::default(), decoding };
        Ok(Self { preparer: Preparer::of(manifest)?, executor, report })
    }

    /// What loading showed.
    pub fn report(&self) -> &LoadReport {
        &self.report
    }

    /// The bundle's manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.executor.manifest
    }

    /// Its halves.
    pub fn split(self) -> (Preparer, Executor) {
        (self.preparer, self.executor)
    }

    /// Looks at a part of each picture only: left, top, width and height as shares of it, 0 to 1.
    pub fn limit_to(&mut self, region: Option<[f32; 4]>) {
        self.preparer.limit_to(region);
    }

    /// Decodes JPEGs this finely from now on, whatever the manifest says: to compare the two.
    ///
    /// # Errors
    /// As [`Engine::load`], for a manifest that cannot be followed.
    pub fn decode_jpegs(&mut self, detail: JpegDetail) -> Result<(), Reason> {
        let mut manifest = self.executor.manifest.clone();
        manifest.inputs.iter_mut().for_each(|input| input.jpeg = detail);
        self.preparer = Preparer::of(&manifest)?;
        Ok(())
    }

    /// Answers one frame.
    ///
    /// # Errors
    /// `BadRequest` for a frame that is not what the model takes, `NotFinite` for an output with NaN or infinity,
    /// `Internal` when the runtime fails. The engine can go on with the next frame.
    pub fn run(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason> {
        let prepared = self.preparer.prepare(frame, self.executor.input())?;
        self.executor.answer(&prepared)
    }

    /// Runs the bare model on whatever its input holds from the last frame, for measuring; milliseconds.
    ///
    /// # Errors
    /// As [`Engine::run`].
    pub fn run_bare(&mut self) -> Result<f32, Reason> {
        let start = Instant::now();
        self.executor.session.run()?;
        Ok(milliseconds(start, Instant::now()))
    }
}

impl Executor {
    /// The tensor that the next run is on.
    pub fn input(&mut self) -> &mut Input {
        self.session.input()
    }

    /// Another tensor, to be prepared while the model runs.
    ///
    /// # Errors
    /// `Internal` when there is no memory for it.
    pub fn spare_input(&self) -> Result<Input, Reason> {
        self.session.spare_input()
    }

    /// The next run is on this tensor; that of the last one comes back in its place.
    pub fn exchange(&mut self, input: &mut Input) {
        self.session.exchange(input);
    }

    /// Runs the model on its tensor, and decodes what comes out.
    ///
    /// # Errors
    /// `NotFinite` for an output with NaN or infinity, `Internal` when the runtime fails.
    pub fn answer(&mut self, prepared: &Prepared) -> Result<(Output, StageTimes), Reason> {
        if self.decoding.wants_input() {
            let (values, _) = self.session.input().values()?;
            self.decoding.see_input(&values);
        }
        let start = Instant::now();
        let answer = self.session.run()?;
        let inferred = Instant::now();
        let decoding = &mut self.decoding;
        let output = answer.look(&mut self.views, |tensors| decoding.decode(tensors, &prepared.geometry))?;
        let times = StageTimes {
            decode: prepared.decode,
            preprocess: prepared.preprocess,
            infer: milliseconds(start, inferred),
            postprocess: milliseconds(inferred, Instant::now()),
        };
        Ok((output, times))
    }
}

/// What answers a frame.
pub trait Respond {
    /// Answers one frame.
    ///
    /// # Errors
    /// As [`Engine::run`].
    fn respond(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason>;
}

impl Respond for Engine {
    fn respond(&mut self, frame: FrameView<'_>) -> Result<(Output, StageTimes), Reason> {
        self.run(frame)
    }
}
