//! How right the answers are, against the belt's truth.
//!
//! F1 as usual for detectors: an answer is right when its class is that of a part, their boxes
//! overlap by at least `LEAST_IOU`, and no better answer took that part. A part that is hardly
//! inside the picture counts for nothing, and so does an answer on it.

use crate::domain::Detection;
use crate::domain::result::iou;
use crate::inference::source::scene::Truth;

/// Least overlap (IoU) of an answer with its part.
const LEAST_IOU: f32 = 0.5;
/// Parts of which less than this share is inside the picture are not judged.
const LEAST_VISIBLE: f32 = 0.5;
/// Least overlap with a part that is not judged, for the answer not to be judged either.
const LEAST_HIDDEN_IOU: f32 = 0.1;

/// Answers counted over any number of pictures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Pictures.
    pub frames: u64,
    /// Answers that match a part.
    pub right: u64,
    /// Answers that match none.
    pub wrong: u64,
    /// Parts that no answer matches.
    pub missed: u64,
}

impl Tally {
    /// Counts the answers to one picture; `detections` are best first.
    pub fn add(&mut self, detections: &[Detection], truths: &[Truth]) {
        self.frames += 1;
        let (mut open, hidden): (Vec<&Truth>, Vec<&Truth>) =
            truths.iter().partition(|truth| truth.visible >= LEAST_VISIBLE);
        for detection in detections {
            let best = open
                .iter()
                .enumerate()
                .filter(|(_, truth)| truth.class == detection.class)
                .map(|(i, truth)| (i, iou(truth.bbox, detection.bbox)))
                .filter(|(_, overlap)| *overlap >= LEAST_IOU)
                .max_by(|a, b| a.1.total_cmp(&b.1));
            if let Some((i, _)) = best {
                open.swap_remove(i);
                self.right += 1;
            } else if !hidden.iter().any(|truth| iou(truth.bbox, detection.bbox) > LEAST_HIDDEN_IOU) {
                self.wrong += 1;
            }
        }
        self.missed += open.len() as u64;
    }

    /// `2·right ÷ (2·right + wrong + missed)`, 0 to 1; `None` where there was nothing to find and
    /// nothing was found.
    pub fn f1(&self) -> Option<f64> {
        let all = 2 * self.right + self.wrong + self.missed;
        (all > 0).then(|| (2 * self.right) as f64 / all as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn truth(class: u32, bbox: [f32; 4], visible: f32) -> Truth {
        Truth { label: "part", class, bbox, visible }
    }

    fn found(class: u32, bbox: [f32; 4]) -> Detection {
        Detection { label: "part".into(), class, score: 0.9, bbox }
    }

    fn tally(detections: &[Detection], truths: &[Truth]) -> (u64, u64, u64) {
        let mut tally = Tally::default();
        tally.add(detections, truths);
        (tally.right, tally.wrong, tally.missed)
    }

    const A: [f32; 4] = [0.0, 0.0, 10.0, 10.0];
    const B: [f32; 4] = [20.0, 0.0, 30.0, 10.0];

    #[test]
    fn right_wrong_and_missed() {
        assert_eq!(tally(&[found(0, A)], &[truth(0, A, 1.0)]), (1, 0, 0));
        assert_eq!(tally(&[found(1, A)], &[truth(0, A, 1.0)]), (0, 1, 1), "another class is wrong");
        assert_eq!(tally(&[found(0, B)], &[truth(0, A, 1.0)]), (0, 1, 1), "another place is wrong");
        assert_eq!(tally(&[found(0, A), found(0, A)], &[truth(0, A, 1.0)]), (1, 1, 0), "once is enough");
        let half = [0.0, 0.0, 10.0, 5.1];
        assert_eq!(tally(&[found(0, half)], &[truth(0, A, 1.0)]), (1, 0, 0));
        let less = [0.0, 0.0, 10.0, 4.9];
        assert_eq!(tally(&[found(0, less)], &[truth(0, A, 1.0)]), (0, 1, 1));
    }

    #[test]
    fn hardly_visible_parts_and_answers_on_them_are_not_judged() {
        assert_eq!(tally(&[], &[truth(0, A, 0.4)]), (0, 0, 0));
        assert_eq!(tally(&[found(1, A)], &[truth(0, A, 0.4)]), (0, 0, 0));
        assert_eq!(tally(&[found(1, B)], &[truth(0, A, 0.4)]), (0, 1, 0));
    }

    #[test]
    fn f1_is_the_share_of_what_is_right() {
        assert_eq!(Tally::default().f1(), None);
        assert_eq!(Tally { frames: 1, right: 3, wrong: 1, missed: 1 }.f1(), Some(0.75));
        assert_eq!(Tally { frames: 1, right: 0, wrong: 0, missed: 1 }.f1(), Some(0.0));
    }
}
