//! `edgewarden bundle optimize`: mends what makes a model slow, and proves that the answers stay.
//!
//! The original is only read. What is new is made in a folder of its own beside the wanted place, and gets
//! its name when everything is proved.

use crate::bundle::intake::edit::{self, Wishes};
use crate::bundle::intake::{self, Finding, Fixed};
use crate::bundle::onnx::graph::{Axis, Graph, Model};
use crate::bundle::{self, OpenBundle, onnx};
use crate::cli::exit::{Own, Usage};
use crate::cli::runtime::RuntimeArgs;
use crate::cli::ui::{self, say};
use crate::domain::manifest::Tolerance;
use crate::domain::runtime::RuntimeSettings;
use crate::domain::trial::{self, Cut};
use crate::domain::{Reason, ReasonCode};
use crate::inference::picture::Picture;
use crate::inference::prove::{self, Difference, Range};
use crate::inference::session::bare::{Bare, Numbers};
use crate::inference::{Engine, golden};
use anyhow::Context;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// What an answer on a golden input may differ by: the order of additions, no more.
const CLOSE: Tolerance = Tolerance { score: 1e-4, iou: 0.999, value: 1e-4 };
/// Operators whose outputs have as many rows as the picture has things.
const COUNTING: [&str; 8] =
    ["NonMaxSuppression", "NonZero", "Unique", "Compress", "Loop", "If", "Scan", "RoiAlign"];

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The bundle's folder, or an ONNX file
    #[arg(value_name = "BUNDLE")]
    from: PathBuf,
    /// Where the new one goes; must not exist [default: the name with "-optimized" added]
    #[arg(short, long, value_name = "OUT")]
    output: Option<PathBuf>,
    /// Also make 64-bit floats 32-bit ones
    #[arg(long)]
    f32: bool,
    /// Random inputs on which old and new must agree
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    samples: u32,
    /// Largest relative difference that counts as the same answer
    #[arg(long, value_name = "LIMIT", default_value_t = 1e-5)]
    limit: f64,
    /// Print what was done and proved as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    runtime: RuntimeArgs,
}

/// What was done and proved.
#[derive(Debug, Serialize)]
struct Report {
    /// The new bundle's folder or the new file; absent where there was nothing to do.
    output: Option<PathBuf>,
    /// What was done.
    done: Vec<String>,
    /// What is left: it cannot be mended here.
    left: Vec<Finding>,
    /// Random inputs on which both were run.
    samples: u32,
    /// How far their outputs are apart.
    difference: Difference,
    /// Golden inputs on which both answer the same.
    golden: usize,
    /// Medians of the bare run, before and after, milliseconds.
    run_ms: [f64; 2],
    /// Bytes of the model's file, before and after.
    bytes: [u64; 2],
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let settings = args.runtime.settings()?;
    let to = place(&args)?;
    let report = if args.from.is_dir() {
        let bundle = bundle::open(&args.from, None).map_err(Own)?;
        if bundle.manifest.has_secret_model() {
            let detail =
                format!("{}: its model is encrypted; optimise the plain bundle", args.from.display());
            return Err(Usage(detail).into());
        }
        let fixed: Vec<_> = bundle
            .manifest
            .inputs
            .iter()
            .map(|input| Fixed { name: input.name.clone(), shape: input.shape.clone() })
            .collect();
        let range = bundle.manifest.inputs.first().map(Range::of).unwrap_or_default();
        let case = Case { args: &args, settings: &settings, model: bundle.model(), fixed, range };
        of_bundle(&case, &bundle, &to)?
    } else {
        let range = Range { low: 0.0, high: 1.0 };
        let case =
            Case { args: &args, settings: &settings, model: args.from.clone(), fixed: Vec::new(), range };
        of_file(&case, &to)?
    };
    tell(&report, args.json)
}

/// What is to be mended, and with what it is proved.
struct Case<'a> {
    args: &'a Args,
    settings: &'a RuntimeSettings,
    model: PathBuf,
    fixed: Vec<Fixed>,
    range: Range,
}

fn place(args: &Args) -> anyhow::Result<PathBuf> {
    let to = match &args.output {
        Some(to) => to.clone(),
        None => {
            let stem = if args.from.is_dir() { args.from.file_name() } else { args.from.file_stem() };
            let stem = stem.and_then(|stem| stem.to_str()).context("name the output with -o")?;
            let ending = if args.from.is_dir() { "" } else { ".onnx" };
            args.from.with_file_name(format!("{stem}-optimized{ending}"))
        }
    };
    if to.symlink_metadata().is_ok() {
        anyhow::bail!("{} is there already; name another place with -o, or remove it", to.display());
    }
    Ok(to)
}

/// A folder beside `to` in which the new one is made.
fn workshop(to: &Path) -> anyhow::Result<tempfile::TempDir> {
    let beside = match to.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    let made = tempfile::Builder::new().prefix(".edgewarden-optimize").tempdir_in(beside);
    made.with_context(|| format!("make a folder in {}", beside.display()))
}

fn of_file(case: &Case<'_>, to: &Path) -> anyhow::Result<Report> {
    let work = workshop(to)?;
    let name = case.model.file_name().context("name an ONNX file")?;
    let external = onnx::header(&case.model)?.external;
    for path in &external {
        bundle::path::check(path)?;
        copy(&case.model.with_file_name(path), &work.path().join(path))?;
    }
    let mut report = case.mend(&work.path().join(name))?;
    if report.done.is_empty() {
        return Ok(report);
    }
    for path in &external {
        let to = to.with_file_name(path);
        if !to.exists() {
            copy(&work.path().join(path), &to)?;
        }
    }
    std::fs::rename(work.path().join(name), to).with_context(|| format!("write {}", to.display()))?;
    report.output = Some(to.to_owned());
    Ok(report)
}

fn of_bundle(case: &Case<'_>, bundle: &OpenBundle, to: &Path) -> anyhow::Result<Report> {
    let work = workshop(to)?;
    let made = work.path().join("bundle");
    for file in &bundle.manifest.files {
        if file.path != bundle.manifest.model {
            copy(&bundle.file(&file.path), &made.join(&file.path))?;
        }
    }
    let model = made.join(&bundle.manifest.model);
    std::fs::create_dir_all(model.parent().unwrap_or(&made)).context("make the new bundle's folder")?;
    let mut report = case.mend(&model)?;
    if report.done.is_empty() {
        return Ok(report);
    }
    let mut manifest = bundle.manifest.clone();
    manifest.needs.ir_version = manifest.needs.ir_version.and(onnx::header(&model)?.ir_version);
    bundle::write_manifest(&made, &manifest)?;
    bundle::seal(&made)?;
    report.golden = golden_agree(bundle, &bundle::open(&made, None)?, case.settings)?;
    std::fs::rename(&made, to).with_context(|| format!("write {}", to.display()))?;
    report.output = Some(to.to_owned());
    Ok(report)
}

/// Both bundles on the golden inputs: the new one must answer as expected, and as the old one.
fn golden_agree(old: &OpenBundle, new: &OpenBundle, settings: &RuntimeSettings) -> anyhow::Result<usize> {
    let (mut before, mut after) = (Engine::load(old, settings)?, Engine::load(new, settings)?);
    for sample in &old.manifest.golden {
        let picture = Picture::read(&old.file(&sample.input))?;
        let (was, is) = (before.run(picture.view())?.0, after.run(picture.view())?.0);
        trial::compare(&was, &is, &CLOSE, Cut::of(&old.manifest.decode)).map_err(|difference| {
            let detail = format!(
                "golden input {}: the mended model answers otherwise: {difference}; the original is untouched",
                sample.input
            );
            Reason::new(ReasonCode::GoldenMismatch, detail)
        })?;
    }
    golden::run_all(&mut after, new, |_, _| {}).0?;
    Ok(old.manifest.golden.len())
}

impl Case<'_> {
    /// Writes the mended model to `to`, where the files with its weights lie already, and proves it.
    fn mend(&self, to: &Path) -> anyhow::Result<Report> {
        let bytes = onnx::read(&self.model)?;
        let bad = |error: String| onnx::no_model(&self.model, &error);
        let view = Model::parse(&bytes).map_err(bad)?;
        let mut before = Bare::load(&self.model, self.settings)?;
        let fixed = if self.fixed.is_empty() { batches(&view.graph) } else { self.fixed.clone() };
        let shapes = prove::shapes(before.ports(), &fixed);
        let inputs: Vec<_> = (0..self.args.samples)
            .map(|seed| prove::noise(before.ports(), &shapes, self.range, seed))
            .collect();
        let answers =
            inputs.iter().map(|input| Ok(before.run(input)?.0)).collect::<Result<Vec<_>, Reason>>()?;

        let outputs = if settled(&view.graph, &fixed) { always(&answers) } else { Vec::new() };
        let wishes = Wishes { fixed: fixed.clone(), outputs, narrow: self.args.f32 };
        let edited = edit::mend(&bytes, &wishes).map_err(bad)?;
        let (new, done) = (edited.bytes, edited.done);
        write(to, &new)?;
        let mut report = Report {
            output: None,
            done,
            left: intake::examine(&Model::parse(&new).map_err(bad)?, &fixed),
            samples: self.args.samples,
            difference: Difference::default(),
            golden: 0,
            run_ms: [0.0; 2],
            bytes: [bytes.len() as u64, new.len() as u64],
        };
        if report.done.is_empty() {
            return Ok(report);
        }
        let mut after = Bare::load(to, self.settings).context("load the mended model")?;
        for (input, answer) in inputs.iter().zip(&answers) {
            report.difference.see(answer, &after.run(input)?.0);
        }
        let Difference { absolute, relative, output } = &report.difference;
        // A difference that is no number is too large.
        if relative.is_nan() || *relative > self.args.limit {
            let detail = format!(
                "the mended model answers otherwise: output {output:?} differs by {relative:.1e} of its largest value \
                 ({absolute:.1e}), the limit is {:.1e}; the original is untouched{}",
                self.args.limit,
                if self.args.f32 {
                    "; 32 bits may be too few: raise --limit, or leave out --f32"
                } else {
                    ""
                }
            );
            return Err(Reason::new(ReasonCode::GoldenMismatch, detail).into());
        }
        report.run_ms = prove::times(&mut before, &mut after, &inputs[0])?;
        Ok(report)
    }
}

/// A batch of one for inputs of which only the batch is open.
fn batches(graph: &Graph) -> Vec<Fixed> {
    let shape = |axes: &[Axis]| {
        let length = |(at, axis): (usize, &Axis)| match (at, axis) {
            (_, Axis::Fixed(length)) => Some(*length),
            (0, Axis::Named(_) | Axis::Open) => Some(1),
            (_, Axis::Named(_) | Axis::Open) => None,
        };
        axes.iter().enumerate().map(length).collect::<Option<Vec<_>>>()
    };
    let fixed = |value: &onnx::graph::Value| {
        Some(Fixed { name: value.name.clone(), shape: shape(value.shape.as_ref()?)? })
    };
    graph.fed().filter_map(fixed).collect()
}

/// Are the outputs' shapes a matter of the inputs' shapes alone?
fn settled(graph: &Graph, fixed: &[Fixed]) -> bool {
    !graph.nested
        && graph.fed().all(|input| fixed.iter().any(|one| one.name == input.name))
        && graph.nodes.iter().all(|node| node.domain.is_empty() && !COUNTING.contains(&node.op.as_str()))
}

/// The outputs that had the same shape in every run.
fn always(answers: &[Vec<Numbers>]) -> Vec<Fixed> {
    let Some((first, rest)) = answers.split_first() else { return Vec::new() };
    let same = |output: &&Numbers| {
        let again = |other: &Numbers| other.name == output.name && other.shape == output.shape;
        !output.shape.contains(&0) && rest.iter().all(|answer| answer.iter().any(again))
    };
    let fixed = |output: &Numbers| Fixed { name: output.name.clone(), shape: output.shape.clone() };
    first.iter().filter(same).map(fixed).collect()
}

fn write(to: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    std::fs::write(to, bytes).with_context(|| format!("write {}", to.display()))
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if let Some(folder) = to.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("make folder {}", folder.display()))?;
    }
    std::fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    Ok(())
}

fn tell(report: &Report, json: bool) -> anyhow::Result<()> {
    if json {
        return ui::print_json(report);
    }
    for line in &report.done {
        say!("done   {line}");
    }
    for finding in &report.left {
        say!("left   {}", super::told_of(finding));
    }
    let Some(output) = &report.output else {
        say!("Nothing to mend; nothing was written.");
        return Ok(());
    };
    let Difference { absolute, relative, .. } = &report.difference;
    say!(
        "same   on {}: largest difference {absolute:.1e}, {relative:.1e} of the output's largest value",
        ui::count(report.samples as usize, "random input")
    );
    if report.golden > 0 {
        say!("same   on {}", ui::count(report.golden, "golden input"));
    }
    let ([was_ms, ms], [was, is]) = (report.run_ms, report.bytes);
    say!("run    {was_ms:.2} ms before, {ms:.2} ms after: {:.2} times as fast", was_ms / ms);
    say!("size   {} before, {} after", ui::size(was), ui::size(is));
    say!("Wrote {}", output.display());
    if output.is_dir() {
        say!("Raise its version before you publish it: one version has one content.");
    }
    Ok(())
}
