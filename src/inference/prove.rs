//! Does a changed model still answer the same? Both are run on the same random inputs, and their numbers
//! are compared.

use super::session::bare::{Bare, Numbers};
use crate::bundle::intake::Fixed;
use crate::bundle::model::{Port, Ports};
use crate::domain::Reason;
use crate::domain::manifest::{ElementType, InputSpec};
use std::time::{Duration, Instant};

/// Length of an open axis of which nothing is known: a multiple of 32, as most models want.
const OPEN: i64 = 64;
/// Runs in each measurement, at least and at most, and its longest time.
const RUNS: (usize, usize) = (5, 200);
const LONGEST: Duration = Duration::from_secs(2);

/// The values that an input may hold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The greatest.
    pub high: f64,
}

impl Range {
    /// What the pre-processing of a picture gives for pixels of 0 to 255.
    pub fn of(spec: &InputSpec) -> Self {
        let one =
            |list: &[f32], at: usize, or: f32| list.get(at).or_else(|| list.first()).copied().unwrap_or(or);
        let value = |pixel: f32, at: usize| {
            f64::from((pixel * spec.scale - one(&spec.mean, at, 0.0)) / one(&spec.std, at, 1.0))
        };
        let ends = (0..spec.color.channels()).flat_map(|at| [value(0.0, at), value(255.0, at)]);
        ends.fold(Self { low: f64::INFINITY, high: f64::NEG_INFINITY }, |range, end| Self {
            low: range.low.min(end),
            high: range.high.max(end),
        })
    }
}

impl Default for Range {
    fn default() -> Self {
        Self { low: -1.0, high: 1.0 }
    }
}

/// How far the answers of two models are apart.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Difference {
    /// The largest difference of two numbers.
    pub absolute: f64,
    /// The largest difference within an output over the largest magnitude in that output.
    pub relative: f64,
    /// The output with the largest relative difference.
    pub output: String,
}

impl Difference {
    /// Takes in the outputs of one run; what cannot be compared is infinitely far apart.
    pub fn see(&mut self, before: &[Numbers], after: &[Numbers]) {
        for one in before {
            let (absolute, relative) = match after.iter().find(|other| other.name == one.name) {
                Some(other) if other.values.len() == one.values.len() => {
                    let far = one.values.iter().zip(&other.values).map(|(a, b)| apart(*a, *b));
                    let far = far.fold(0.0, f64::max);
                    let largest = one.values.iter().filter(|v| v.is_finite()).map(|v| v.abs());
                    let largest = largest.fold(0.0, f64::max);
                    (far, if far == 0.0 { 0.0 } else { far / largest.max(f64::MIN_POSITIVE) })
                }
                _ => (f64::INFINITY, f64::INFINITY),
            };
            self.absolute = self.absolute.max(absolute);
            if relative >= self.relative {
                (self.relative, self.output) = (relative, one.name.clone());
            }
        }
    }
}

/// The difference of two numbers; none where both are the same infinity or both are none.
fn apart(a: f64, b: f64) -> f64 {
    if a == b || (a.is_nan() && b.is_nan()) {
        0.0
    } else if a.is_finite() && b.is_finite() {
        (a - b).abs()
    } else {
        f64::INFINITY
    }
}

/// Shapes to feed: the settled ones, else those of the model with open axes filled in.
pub fn shapes(ports: &Ports, fixed: &[Fixed]) -> Vec<Fixed> {
    let shape = |port: &Port| {
        if let Some(known) = fixed.iter().find(|one| one.name == port.name) {
            return known.shape.clone();
        }
        let picture = crate::bundle::draft::input(ports).ok().filter(|spec| spec.name == port.name);
        if let Some(spec) = picture {
            return spec.shape;
        }
        let fill = |(at, &axis): (usize, &i64)| match (axis, at) {
            (1.., _) => axis,
            (_, 0) => 1,
            (_, _) => OPEN,
        };
        port.shape.iter().enumerate().map(fill).collect()
    };
    ports.inputs.iter().map(|port| Fixed { name: port.name.clone(), shape: shape(port) }).collect()
}

/// Random inputs of these shapes; the same seed gives the same ones.
pub fn noise(ports: &Ports, shapes: &[Fixed], range: Range, seed: u32) -> Vec<Numbers> {
    // A linear congruential generator; its upper bits look random.
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f64::from(state >> 8) / f64::from(1 << 24)
    };
    let input = |(port, fixed): (&Port, &Fixed)| {
        let range = match port.element {
            Some(ElementType::U8) => Range { low: 0.0, high: 255.0 },
            Some(ElementType::I8) => Range { low: -128.0, high: 127.0 },
            // A count, an index: what every model can take.
            Some(ElementType::I64) => Range { low: 0.0, high: 1.0 },
            Some(ElementType::F32 | ElementType::F16) | None => range,
        };
        let count = fixed.shape.iter().product::<i64>().max(0) as usize;
        let values = (0..count).map(|_| range.low + (range.high - range.low) * next()).collect();
        Numbers { name: port.name.clone(), shape: fixed.shape.clone(), values }
    };
    ports.inputs.iter().zip(shapes).map(input).collect()
}

/// Medians of the bare run of two models in milliseconds, taken in turn, so that a machine that slows down
/// slows both.
///
/// # Errors
/// As [`Bare::run`].
pub fn times(before: &mut Bare, after: &mut Bare, inputs: &[Numbers]) -> Result<[f64; 2], Reason> {
    let start = Instant::now();
    let mut taken = [Vec::new(), Vec::new()];
    while taken[0].len() < RUNS.0 || (taken[0].len() < RUNS.1 && start.elapsed() < LONGEST) {
        for (model, times) in [&mut *before, &mut *after].into_iter().zip(&mut taken) {
            times.push(model.run(inputs)?.1);
        }
    }
    Ok(taken.map(|mut times| {
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn output(values: &[f64]) -> Vec<Numbers> {
        vec![Numbers { name: "y".into(), shape: vec![values.len() as i64], values: values.into() }]
    }

    fn difference(a: &[f64], b: &[f64]) -> (f64, f64) {
        let mut seen = Difference::default();
        seen.see(&output(a), &output(b));
        (seen.absolute, seen.relative)
    }

    #[test]
    fn differences_count_against_the_largest_number() {
        assert_eq!(difference(&[1.0, 0.0, -100.0], &[1.0, 0.5, -100.0]), (0.5, 0.005));
        assert_eq!(difference(&[0.0], &[0.0]), (0.0, 0.0));
        assert_eq!(difference(&[f64::NAN, f64::INFINITY], &[f64::NAN, f64::INFINITY]), (0.0, 0.0));
    }

    #[test]
    fn what_cannot_be_compared_is_no_equality() {
        for other in [&[1.0][..], &[1.0, f64::NAN], &[1.0, f64::INFINITY]] {
            assert_eq!(difference(&[1.0, 2.0], other).1, f64::INFINITY, "{other:?}");
        }
        let mut seen = Difference::default();
        seen.see(&output(&[1.0]), &[]);
        assert_eq!(seen.relative, f64::INFINITY);
    }

    #[test]
    fn noise_is_the_same_for_the_same_seed_and_within_its_range() {
        let port = Port { name: "x".into(), element: None, type_name: "f64".into(), shape: vec![-1, 3] };
        let ports = Ports { inputs: vec![port], outputs: Vec::new() };
        let shapes = shapes(&ports, &[]);
        assert_eq!(shapes[0].shape, [1, 3]);
        let range = Range { low: 5.0, high: 6.0 };
        let one = noise(&ports, &shapes, range, 1);
        assert_eq!(one, noise(&ports, &shapes, range, 1));
        assert_ne!(one, noise(&ports, &shapes, range, 2));
        assert!(one[0].values.iter().all(|value| (5.0..6.0).contains(value)));
    }
}
