//! How alike two answers to the same frame are.

use crate::domain::result::{Detection, RawTensor, iou};

/// Least overlap of two boxes that count as the same.
const SAME_BOX: f32 = 0.5;

/// Pairs of boxes of one label that overlap, each box in one pair at most; the best box chooses first.
pub(super) fn matched(one: &[Detection], other: &[Detection]) -> usize {
    let mut free: Vec<&Detection> = other.iter().collect();
    let mut pairs = 0;
    for wanted in one {
        let nearest = free
            .iter()
            .enumerate()
            .filter(|(_, found)| found.label == wanted.label)
            .map(|(at, found)| (at, iou(found.bbox, wanted.bbox)))
            .max_by(|a, b| a.1.total_cmp(&b.1));
        if let Some((at, overlap)) = nearest
            && overlap >= SAME_BOX
        {
            free.swap_remove(at);
            pairs += 1;
        }
    }
    pairs
}

/// Σ|a − b| over Σ max(|a|, |b|) of all values, 0 to 2; outputs of another name or size are 1 apart.
pub(super) fn distance(one: &[RawTensor], other: &[RawTensor]) -> f64 {
    let alike = one.len() == other.len()
        && one.iter().zip(other).all(|(a, b)| a.name == b.name && a.values.len() == b.values.len());
    if !alike {
        return 1.0;
    }
    let pairs = || one.iter().zip(other).flat_map(|(a, b)| a.values.iter().zip(&b.values));
    let apart: f64 = pairs().map(|(a, b)| f64::from((a - b).abs())).sum();
    let size: f64 = pairs().map(|(a, b)| f64::from(a.abs().max(b.abs()))).sum();
    match apart / size {
        // A value that is no number is like none.
        apart if apart.is_finite() => apart,
        _ if size == 0.0 => 0.0,
        _ => 1.0,
    }
}
