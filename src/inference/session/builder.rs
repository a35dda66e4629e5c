//! From a file to a loaded model: one attempt for each provider of the configured order.
//!
//! Providers are asked for one by one with `error_on_failure`, and what a profile of one run says counts,
//! not what was registered: a provider that takes no node of the model is not the one that runs it.

use super::environment::environment;
use super::fault::{Fault, failed, internal, model_fault};
use super::ports::ports;
use super::providers::{self, provider_name};
use super::shares::profile_names;
use super::{Chosen, Input, Plan, Session, select};
use crate::bundle::model::Ports;
use crate::domain::Reason;
use crate::domain::manifest::Provider;
use crate::domain::runtime::RuntimeSettings;
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
        model: &Path,
        settings: &RuntimeSettings,
        mut plan: impl FnMut(&Ports) -> Result<Plan, Reason>,
    ) -> Result<(Self, Chosen), Reason> {
        let (environment, version) = environment(&settings.library)?;
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
                Ok(session) => {
                    let fallback = (!refused.is_empty()).then(|| refused.join("; "));
                    return Ok((session, Chosen { provider: order[at], fallback }));
                }
                Err(Fault::Final(reason)) => return Err(reason),
                Err(Fault::Runtime(error)) => model_fault(model, &error, &version),
                Err(Fault::Provider(detail)) => failed(detail),
            };
            if order.len() == 1 && order[at] == Provider::Cpu {
                return Err(fault);
            }
            refused.push(format!("{}: {}", order[at].as_str(), fault.detail));
        }
        let remedy = if settings.required { "; `runtime.required` allows no other provider" } else { "" };
        Err(failed(format!("model {}: no provider runs it: {}{remedy}", model.display(), refused.join("; "))))
    }
}

/// One try to load a model on the first provider of `order`, with the others behind it for the nodes
/// that it does not take.
struct Attempt<'a> {
    environment: &'a Environment,
    version: &'a str,
    model: &'a Path,
    settings: &'a RuntimeSettings,
    order: &'a [Provider],
}

impl Attempt<'_> {
    fn load(&self, plan: &mut impl FnMut(&Ports) -> Result<Plan, Reason>) -> Result<Session, Fault> {
        let provider = self.order.first().copied().unwrap_or(Provider::Cpu);
        let mut builder = self.builder()?;
        // A profile of the first run tells who runs the nodes; the processor always does.
        let profile = match provider {
            Provider::Cpu => None,
            Provider::TensorRt | Provider::Cuda => {
                Some(tempfile::tempdir_in(&self.settings.engine_cache).map_err(|error| {
                    Fault::Final(internal(format!(
                        "engine cache {}: {error}; it must be a writable folder",
                        self.settings.engine_cache.display()
                    )))
                })?)
            }
        };
        if let Some(folder) = &profile {
            builder = builder.with_profiling(folder.path().join("run"))?;
        }
        let session = builder.commit_from_file(self.model)?;
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
        if let Some(folder) = profile {
            let file = session.session.end_profiling()?;
            let profile = std::fs::read_to_string(&file).unwrap_or_default();
            let _ = folder.close();
            if !profile_names(&profile, provider_name(provider)) {
                return Err(Fault::Provider("it takes no operator of this model".into()));
            }
        }
        Ok(session)
    }

    fn builder(&self) -> Result<SessionBuilder, Fault> {
        let threads = self.settings.intra_threads.unwrap_or(1);
        Ok(ort::session::Session::builder(self.environment)?
            .with_log_level(LogLevel::Warning)?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            .with_intra_op_spinning(false)?
            .with_inter_op_spinning(false)?
            .with_execution_providers(providers::dispatch(self.order, self.settings))?)
    }
}
