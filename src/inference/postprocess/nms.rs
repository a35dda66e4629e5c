//! Non-maximum suppression: of several boxes around one thing, the best stays.

use super::{Candidate, Seen, Thresholds, report};
use crate::domain::Detection;
use crate::domain::manifest::Keep;
use crate::domain::result::iou;

/// Candidates looked at, best first; Ultralytics' `max_nms`. Bounds the time a wild model can take.
const MAX_CANDIDATES: usize = 30_000;

/// So many candidates are sorted by insertion.
const FEW: usize = 32;

/// Collects the boxes of a frame and drops the doubles.
pub(super) struct Suppression {
    keep: Keep,
    thresholds: Thresholds,
    found: Vec<Candidate>,
    kept: Vec<Candidate>,
}

impl Suppression {
    /// Nothing collected yet.
    pub(super) fn new(keep: &Keep, thresholds: Thresholds) -> Self {
        Self { keep: keep.clone(), thresholds, found: Vec::new(), kept: Vec::new() }
    }

    /// No box below this score will be kept, whatever its class.
    pub(super) fn least(&self) -> f32 {
        self.thresholds.least()
    }

    /// Collects a box (left, top, right, bottom) unless its score is below its class's threshold.
    pub(super) fn offer(&mut self, bbox: [f32; 4], class: usize, score: f32) {
        let class = class as u32;
        // A box can overflow where the output itself is finite (the exponential of a wild YOLOX).
        if score >= self.thresholds.of_class(class) && bbox.iter().all(|value| value.is_finite()) {
            self.found.push(Candidate { bbox, class, score, order: self.found.len() as u32 });
        }
    }

    /// Reports the boxes that stay and forgets all.
    #[unsafe(export_name = "hot_suppress")]
    pub(super) fn finish(&mut self, seen: Seen<'_>, into: &mut Vec<Detection>) {
        suppress(&mut self.found, &mut self.kept, &self.keep);
        report(&self.kept, seen, into);
        self.found.clear();
    }
}

/// The boxes that stay, best first: a box goes when it overlaps a better one of its class (of any class
/// when `class_agnostic`) by more than the threshold. Equal scores keep the order of the model's output.
fn suppress(candidates: &mut Vec<Candidate>, kept: &mut Vec<Candidate>, keep: &Keep) {
    best_first(candidates);
    candidates.truncate(MAX_CANDIDATES);
    kept.clear();
    for candidate in candidates {
        if kept.len() == keep.max_detections {
            break;
        }
        let covered = kept.iter().any(|better| {
            (keep.class_agnostic || better.class == candidate.class)
                && iou(better.bbox, candidate.bbox) > keep.iou_threshold
        });
        if !covered {
            kept.push(*candidate);
        }
    }
}

/// Sorts by score, without memory of its own; all scores are finite.
#[unsafe(export_name = "hot_best_first")]
pub(super) fn best_first(candidates: &mut [Candidate]) {
    let order = |a: &Candidate, b: &Candidate| b.score.total_cmp(&a.score).then(a.order.cmp(&b.order));
    // The library's sort is built for size, as all that is generic; most frames have few candidates.
    if candidates.len() > FEW {
        return candidates.sort_unstable_by(order);
    }
    for end in 1..candidates.len() {
        let mut at = end;
        while at > 0 && order(&candidates[at], &candidates[at - 1]).is_lt() {
            candidates.swap(at, at - 1);
            at -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0.0..90f32, 0.0..90f32, 1.0..40f32, 1.0..40f32, 0..3u32, 0.0..1f32);
        proptest::collection::vec(one, 0..40).prop_map(|all| {
            let candidate = |(order, (x, y, w, h, class, score))| Candidate {
                bbox: [x, y, x + w, y + h],
                class,
                score,
                order,
            };
            (0..).zip(all).map(candidate).collect()
        })
    }

    fn kept(mut candidates: Vec<Candidate>, keep: &Keep) -> Vec<Candidate> {
        let mut kept = vec![Candidate { bbox: [0.0; 4], class: 9, score: 9.0, order: 9 }];
        suppress(&mut candidates, &mut kept, keep);
        kept
    }

    proptest! {
        #[test]
        fn what_stays_is_apart_and_what_goes_is_covered(all in candidates(), agnostic: bool, most in 1..50usize) {
            let keep = Keep { iou_threshold: 0.4, class_agnostic: agnostic, max_detections: most, ..Keep::default() };
            let kept = kept(all.clone(), &keep);
            let meets = |a: &Candidate, b: &Candidate| {
                (agnostic || a.class == b.class) && iou(a.bbox, b.bbox) > keep.iou_threshold
            };
            prop_assert!(kept.len() <= most);
            prop_assert!(kept.windows(2).all(|pair| pair[0].score >= pair[1].score));
            for (at, one) in kept.iter().enumerate() {
                prop_assert!(all.contains(one));
                prop_assert!(kept[at + 1..].iter().all(|other| !meets(one, other)));
            }
            if kept.len() < most {
                for one in &all {
                    let stays = kept.contains(one);
                    prop_assert!(stays || kept.iter().any(|k| k.score >= one.score && meets(k, one)));
                }
            }
        }
    }

    proptest! {
        #[test]
        fn few_and_many_are_sorted_alike(scores in proptest::collection::vec(0..9u8, 0..80)) {
            let one = |(order, score): (u32, u8)| {
                Candidate { bbox: [0.0; 4], class: 0, score: f32::from(score), order }
            };
            let mut all: Vec<Candidate> = (0..).zip(scores).map(one).collect();
            let mut sorted = all.clone();
            sorted.sort_by(|a, b| b.score.total_cmp(&a.score));
            all.reverse();
            best_first(&mut all);
            prop_assert_eq!(all, sorted);
        }
    }

    #[test]
    fn boxes_of_other_classes_stay_unless_told_otherwise() {
        let one = Candidate { bbox: [0.0, 0.0, 10.0, 10.0], class: 0, score: 0.9, order: 0 };
        let other = Candidate { class: 1, score: 0.8, order: 1, ..one };
        assert_eq!(kept(vec![other, one], &Keep::default()), [one, other]);
        assert_eq!(kept(vec![other, one], &Keep { class_agnostic: true, ..Keep::default() }), [one]);
    }
}
