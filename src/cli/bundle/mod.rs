//! `edgewarden bundle`: making and examining bundles.

mod check;
mod golden;
mod init;
mod jpeg;
mod key;
mod optimize;
mod seal;
mod show;
pub mod verify;

use super::ui;
use crate::bundle::intake::{self, Finding, Fixed};
use crate::bundle::onnx;
use crate::domain::manifest::InputSpec;
use crate::domain::result::Value;
use crate::domain::{Output, Reason};
use std::path::Path;

/// Subcommands.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Draft a bundle from an ONNX file
    Init(init::Args),
    /// Compare a bundle with its model, run it once, list every fault
    Check(check::Args),
    /// Mend what makes a model slow, and prove that its answers stay
    Optimize(optimize::Args),
    /// Print what a bundle says of itself
    Show(show::Args),
    /// Take the present answers on some pictures or windows as the golden samples
    Golden(golden::Args),
    /// List the bundle's files anew after one was changed or added; sign its model, encrypt it
    #[command(visible_alias = "pack")]
    Seal(seal::Args),
    /// Print whom a key for encrypted models is of, or make one
    Key(key::Args),
    /// Check a bundle file or a published release against the root that devices pin
    Verify(verify::Args),
}

/// Runs the command.
pub fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Init(args) => init::run(args),
        Command::Check(args) => check::run(args),
        Command::Optimize(args) => optimize::run(args),
        Command::Show(args) => show::run(args),
        Command::Golden(args) => golden::run(args),
        Command::Seal(args) => seal::run(args),
        Command::Key(args) => key::run(args),
        Command::Verify(args) => verify::run(args),
    }
}

/// What makes a model slow, its inputs always fed as the manifest says.
fn slow_shapes(model: &Path, inputs: &[InputSpec]) -> Result<Vec<Finding>, Reason> {
    let fixed: Vec<_> =
        inputs.iter().map(|input| Fixed { name: input.name.clone(), shape: input.shape.clone() }).collect();
    let view =
        onnx::graph::Model::parse(&onnx::read(model)?).map_err(|error| onnx::no_model(model, &error))?;
    Ok(intake::examine(&view, &fixed))
}

/// A finding in one line.
fn told_of(finding: &Finding) -> String {
    format!("{}: {}; {}", finding.what, finding.why, finding.remedy)
}

/// An answer in few words.
fn told(output: &Output) -> String {
    if let Some(anomaly) = &output.anomaly {
        return format!("error {:.4}{}", anomaly.score, if anomaly.is_anomaly { ", an anomaly" } else { "" });
    }
    if !output.values.is_empty() {
        let value =
            |value: &Value| format!("{} {} {}", value.name, value.value, value.unit).trim_end().to_owned();
        return output.values.iter().map(value).collect::<Vec<_>>().join(", ");
    }
    match (&output.detections[..], &output.classes[..], &output.tensors[..]) {
        ([], [best, ..], _) => format!("{} ({:.3})", best.label, best.score),
        ([], [], tensors) if !tensors.is_empty() => ui::count(tensors.len(), "raw output"),
        (boxes, _, _) => format!("{} {}", boxes.len(), if boxes.len() == 1 { "box" } else { "boxes" }),
    }
}
