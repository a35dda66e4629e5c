//! Non-maximum suppression: of several boxes around one thing, the best stays.

use super::Candidate;
use crate::domain::manifest::Keep;
use crate::domain::result::iou;

/// Candidates looked at, best first; Ultralytics' `max_nms`. Bounds the time a wild model can take.
const MAX_CANDIDATES: usize = 30_000;

/// The boxes that stay, best first: a box goes when it overlaps a better one of its class (of any class
/// when `class_agnostic`) by more than the threshold. Equal scores keep the order of the model's output.
pub(super) fn suppress(mut candidates: Vec<Candidate>, keep: &Keep) -> Vec<Candidate> {
    // Stable; all scores are finite.
    candidates.sort_by(|a, b| b.score.total_cmp(&a.score));
    candidates.truncate(MAX_CANDIDATES);
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in candidates {
        if kept.len() == keep.max_detections {
            break;
        }
        let covered = kept.iter().any(|better| {
            (keep.class_agnostic || better.class == candidate.class)
                && iou(better.bbox, candidate.bbox) > keep.iou_threshold
        });
        if !covered {
            kept.push(candidate);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidates() -> impl Strategy<Value = Vec<Candidate>> {
        let one = (0.0..90f32, 0.0..90f32, 1.0..40f32, 1.0..40f32, 0..3u32, 0.0..1f32);
        proptest::collection::vec(one, 0..40).prop_map(|all| {
            let candidate =
                |(x, y, w, h, class, score)| Candidate { bbox: [x, y, x + w, y + h], class, score };
            all.into_iter().map(candidate).collect()
        })
    }

    proptest! {
        #[test]
        fn what_stays_is_apart_and_what_goes_is_covered(all in candidates(), agnostic: bool, most in 1..50usize) {
            let keep = Keep { iou_threshold: 0.4, class_agnostic: agnostic, max_detections: most, ..Keep::default() };
            let kept = suppress(all.clone(), &keep);
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

    #[test]
    fn boxes_of_other_classes_stay_unless_told_otherwise() {
        let one = Candidate { bbox: [0.0, 0.0, 10.0, 10.0], class: 0, score: 0.9 };
        let other = Candidate { class: 1, score: 0.8, ..one };
        assert_eq!(suppress(vec![other, one], &Keep::default()), [one, other]);
        assert_eq!(suppress(vec![other, one], &Keep { class_agnostic: true, ..Keep::default() }), [one]);
    }
}
