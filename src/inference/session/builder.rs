//! From a file to a loaded model: one attempt for each provider of the configured order.
//!
//! Providers are asked for one by one with `error_on_failure`, and what a profile of one run says counts,
//! not what was registered: a provider that takes no node of the model is not the one that runs it.

use super::environment::environment;
use super::fault::{Fault, failed, internal, model_fault};
use super::ports::ports;
use super::providers;
use super::shares;
use super::{Chosen, Input, Plan, Session, arena, select};
use crate::bundle::model::Ports;
use crate::domain::Reason;
use crate::domain::manifest::Provider;
use crate::domain::runtime::{Optimization, ProviderShare, RuntimeSettings};
use crate::inference::graph_cache::{self, GraphCache, ModelFile};
use ort::environment::Environment;
use ort::logging::LogLevel;
use ort::session::RunOptions;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use std::path::Path;

impl Session {
    /// Loads a model on the first provider of the configured order that runs it. `plan` is told the
    /// model's inputs and outputs and says what is fed and wanted; its error ends the loading. The model
    /// has been run once, on zeros, when this returns.
    ///
    /// # Errors
    /// `LoadFailed` or `Unsupported` with the file and the remedy.
    pub fn load(
        model: impl Into<ModelFile>,
        settings: &RuntimeSettings,
        mut plan: impl FnMut(&Ports) -> Result<Plan, Reason>,
    ) -> Result<(Self, Chosen), Reason> {
        let model = &model.into();
        let (environment, version) = environment(&settings.library)?;
        if let Some((key, fault)) = settings.tuning.faults().into_iter().next() {
            return Err(failed(format!("runtime.{key}: {fault}")));
        }
        let mut order = settings.providers.clone();
        if settings.required {
            order.truncate(1);
        }
        // Every model runs on the processor; without `required`, a slow answer is better than none.
        if order.is_empty() || (!settings.required && !order.contains(&Provider::Cpu)) {
            order.push(Provider::Cpu);
        }
        let mut refused: Vec<String> = Vec::new();
        for at in 0..order.len() {
            let attempt = Attempt {
                environment: &environment,
                version: &version,
                model,
                settings,
                order: &order[at..],
            };
            let fault = match attempt.load(&mut plan) {
                Ok(Loaded { session, shares, saved_graph }) => {
                    let fallback = (!refused.is_empty()).then(|| refused.join("; "));
                    return Ok((session, Chosen { provider: order[at], fallback, shares, saved_graph }));
                }
                Err(Fault::Final(reason)) => return Err(reason),
                Err(Fault::Runtime(error)) => model_fault(&model.path, &error, &version),
                Err(Fault::Provider(detail)) => failed(detail),
            };
            if order.len() == 1 && order[at] == Provider::Cpu {
                return Err(fault);
            }
            refused.push(format!("{}: {}", order[at].as_str(), fault.detail));
        }
        let remedy = if settings.required { "; `runtime.required` allows no other provider" } else { "" };
        Err(failed(format!(
            "model {}: no provider runs it: {}{remedy}",
            model.path.display(),
            refused.join("; ")
        )))
    }
}

/// A folder that is memory on every Linux, and that the locked-in process may write to.
const IN_MEMORY: &str = "/dev/shm";

/// What an attempt gives.
struct Loaded {
    session: Session,
    shares: Vec<ProviderShare>,
    saved_graph: bool,
}

/// One try to load a model on the first provider of `order`, with the others behind it for the nodes
/// that it does not take.
struct Attempt<'a> {
    environment: &'a Environment,
    version: &'a str,
    model: &'a ModelFile,
    settings: &'a RuntimeSettings,
    order: &'a [Provider],
}

impl Attempt<'_> {
    fn load(&self, plan: &mut impl FnMut(&Ports) -> Result<Plan, Reason>) -> Result<Loaded, Fault> {
        match self.order.first().copied().unwrap_or(Provider::Cpu) {
            Provider::Cpu => self.on_processor(plan),
            other => self.on_accelerator(other, plan),
        }
    }

    /// Every model runs there, so there is nothing to be found out; the optimised graph is kept.
    fn on_processor(&self, plan: &mut impl FnMut(&Ports) -> Result<Plan, Reason>) -> Result<Loaded, Fault> {
        let whole = |session, saved_graph| Loaded { session, shares: shares::all_cpu(), saved_graph };
        let cache = GraphCache::of(self.model, self.settings, self.version);
        if let Some(cache) = &cache
            && let Some(graph) = cache.load()
        {
            // It is optimised already. From the bytes that were checked, not from the file.
            let session =
                self.builder(Some(&self.settings.engine_cache), Optimization::Disabled).and_then(|mut b| {
                    let session = b.commit_from_memory(&graph)?;
                    self.finish(session, plan)
                });
            match session {
                Ok(session) => return Ok(whole(session, true)),
                // What the bundle says is wrong, whatever the graph.
                Err(Fault::Final(reason)) => return Err(Fault::Final(reason)),
                Err(Fault::Runtime(_) | Fault::Provider(_)) => {
                    tracing::warn!("the saved graph does not load; made anew from the bundle");
                    cache.forget();
                }
            }
        }
        let keep = self.model.secret.is_none().then_some(&*self.settings.engine_cache);
        let mut builder = self.builder(keep, self.level())?;
        // Without a place to keep it the model runs as well.
        let draft = cache.as_ref().and_then(|cache| {
            cache.draft().inspect_err(|reason| tracing::warn!("the graph is not kept: {reason}")).ok()
        });
        if let Some(draft) = &draft {
            builder = builder.with_optimized_model_path(draft)?;
        }
        let session = self.commit(&mut builder)?;
        let session = self.finish(session, plan)?;
        if let (Some(cache), Some(draft)) = (&cache, &draft)
            && let Err(reason) = cache.keep(draft)
        {
            tracing::warn!("the graph is not kept: {reason}");
        }
        Ok(whole(session, false))
    }

    /// A profile of the first run tells who runs the nodes.
    fn on_accelerator(
        &self,
        provider: Provider,
        plan: &mut impl FnMut(&Ports) -> Result<Plan, Reason>,
    ) -> Result<Loaded, Fault> {
        let engines = match &self.model.secret {
            None => Some(graph_cache::engines(provider, self.model, self.settings, self.version)),
            Some(_) => None,
        };
        let engines = engines.transpose().map_err(Fault::Final)?;
        // The profile names the operators: of a secret model it stays in memory, too.
        let place = engines.as_deref().unwrap_or(Path::new(IN_MEMORY));
        let folder = tempfile::tempdir_in(place).map_err(|error| {
            let place = place.display();
            Fault::Final(internal(format!("engine cache {place}: {error}; it must be a writable folder")))
        })?;
        let mut builder =
            self.builder(engines.as_deref(), self.level())?.with_profiling(folder.path().join("run"))?;
        let session = self.commit(&mut builder)?;
        let mut session = self.finish(session, plan)?;
        let file = session.session.end_profiling()?;
        let profile = std::fs::read_to_string(&file).unwrap_or_default();
        let _ = folder.close();
        let shares = shares::of_profile(&profile);
        if !shares.iter().any(|share| share.provider == provider.as_str()) {
            return Err(Fault::Provider("it takes no operator of this model".into()));
        }
        Ok(Loaded { session, shares, saved_graph: false })
    }

    /// Plans the input and the outputs, and runs the model once.
    fn finish(
        &self,
        session: ort::session::Session,
        plan: &mut impl FnMut(&Ports) -> Result<Plan, Reason>,
    ) -> Result<Session, Fault> {
        let ports = ports(&session);
        let plan = plan(&ports).map_err(Fault::Final)?;
        let input = Input::new(plan.element, plan.shape.clone())?;
        let mut session = Session {
            session,
            input,
            input_name: plan.input,
            options: RunOptions::new()?.with_outputs(select(&plan.outputs, &[])?),
            outputs: plan.outputs,
            version: self.version.to_owned(),
        };
        let fixed = session.warm_up(&ports)?;
        session.options = RunOptions::new()?.with_outputs(select(&session.outputs, &fixed)?);
        Ok(session)
    }

    /// From the file, or from memory where the file is encrypted.
    fn commit(&self, builder: &mut SessionBuilder) -> Result<ort::session::Session, ort::Error> {
        match &self.model.secret {
            None => builder.commit_from_file(&self.model.path),
            Some(secret) => builder.commit_from_memory(secret.bytes()),
        }
    }

    fn level(&self) -> Optimization {
        self.settings.tuning.optimization.unwrap_or(Optimization::All)
    }

    /// `engines`: where providers may keep what they make of the model; `None` for nowhere.
    fn builder(&self, engines: Option<&Path>, level: Optimization) -> Result<SessionBuilder, Fault> {
        let tuning = &self.settings.tuning;
        let threads = self.settings.intra_threads.unwrap_or(1);
        let mut builder = ort::session::Session::builder(self.environment)?
            .with_log_level(LogLevel::Warning)?
            .with_optimization_level(match level {
                Optimization::Disabled => GraphOptimizationLevel::Disable,
                Optimization::Basic => GraphOptimizationLevel::Level1,
                Optimization::Extended => GraphOptimizationLevel::Level2,
                Optimization::All => GraphOptimizationLevel::All,
            })?
            .with_intra_threads(threads)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_memory_pattern(tuning.memory_pattern.unwrap_or(true))?;
        if let Some(threads) = tuning.inter_threads.filter(|threads| *threads > 1) {
            builder = builder.with_parallel_execution(true)?.with_inter_threads(threads)?;
        }
        if arena::share(self.environment, &tuning.cpu).map_err(Fault::Final)? {
            builder = builder.with_env_allocators()?;
        }
        Ok(builder.with_execution_providers(providers::dispatch(self.order, self.settings, engines))?)
    }
}
