//! Which sight is which known object.
//!
//! By how well the boxes lie on each other, less how far their middles are apart (DIoU; with the overlap
//! alone, fast objects at few frames a second would never be known again), best pair first. Objects that were
//! seen in the frame before choose first: what has been out of sight for long does not take its neighbour's
//! place. Greedy and not the best sum: with the predicted boxes the two differ only where boxes cover each
//! other nearly, and there neither knows better.

use crate::domain::result::iou;

/// Least likeness of an object and its sight. At 0, equal squares may be three quarters of their width apart.
const LEAST: f64 = 0.0;

/// What was seen in a frame. Borrowed from the model's answer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sight<'a> {
    /// What the model calls it.
    pub label: &'a str,
    /// Confidence.
    pub score: f32,
    /// Left, top, right, bottom as shares of the picture, finite and with an area; none for what has no place
    /// in it.
    pub area: Option<[f64; 4]>,
}

/// A known object, where it should be now.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Awaited<'a> {
    /// Its label.
    pub label: &'a str,
    /// Its box.
    pub area: Option<[f64; 4]>,
    /// Whether it was in the frame before.
    pub seen_before: bool,
}

/// Pairs of (object, sight), each at most once.
pub fn assign(objects: &[Awaited<'_>], sights: &[Sight<'_>]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for (object_at, object) in objects.iter().enumerate() {
        for (sight_at, sight) in sights.iter().enumerate().filter(|(_, sight)| sight.label == object.label) {
            let likeness = match (object.area, sight.area) {
                (Some(object), Some(sight)) => likeness(object, sight),
                (None, None) => 1.0,
                (Some(_), None) | (None, Some(_)) => continue,
            };
            // NaN is above nothing.
            if likeness > LEAST {
                pairs.push((object.seen_before, likeness, object_at, sight_at));
            }
        }
    }
    // Equal ones in the order in which they came, so that the same frames give the same ids.
    pairs.sort_by(|a, b| (b.0, b.1).partial_cmp(&(a.0, a.1)).unwrap_or(std::cmp::Ordering::Equal));
    let (mut taken, mut given) = (vec![false; objects.len()], vec![false; sights.len()]);
    let mut found = Vec::new();
    for (_, _, object, sight) in pairs {
        if !taken[object] && !given[sight] {
            (taken[object], given[sight]) = (true, true);
            found.push((object, sight));
        }
    }
    found
}

/// The overlap, less the squared distance of the middles as a share of what both span; -1 to 1.
fn likeness(a: [f64; 4], b: [f64; 4]) -> f64 {
    let (dx, dy) = ((a[0] + a[2] - b[0] - b[2]) / 2.0, (a[1] + a[3] - b[1] - b[3]) / 2.0);
    let (width, height) = (a[2].max(b[2]) - a[0].min(b[0]), a[3].max(b[3]) - a[1].min(b[1]));
    let span = width * width + height * height;
    if span > 0.0 { iou(a, b) - (dx * dx + dy * dy) / span } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sight(label: &str, left: f64) -> Sight<'_> {
        Sight { label, score: 0.9, area: Some([left, 0.4, left + 0.1, 0.5]) }
    }

    fn awaited(label: &str, left: f64, seen_before: bool) -> Awaited<'_> {
        Awaited { label, area: Some([left, 0.4, left + 0.1, 0.5]), seen_before }
    }

    fn sorted(mut pairs: Vec<(usize, usize)>) -> Vec<(usize, usize)> {
        pairs.sort_unstable();
        pairs
    }

    #[test]
    fn the_best_pair_is_taken_first_and_labels_are_kept_apart() {
        let objects = [awaited("car", 0.1, true), awaited("car", 0.14, true), awaited("person", 0.1, true)];
        let sights = [sight("car", 0.15), sight("car", 0.11), sight("person", 0.5)];
        assert_eq!(sorted(assign(&objects, &sights)), [(0, 1), (1, 0)]);
    }

    #[test]
    fn what_is_too_far_away_is_another_object() {
        let objects = [awaited("car", 0.1, true)];
        assert_eq!(assign(&objects, &[sight("car", 0.17)]), [(0, 0)], "0.7 of its width");
        assert!(assign(&objects, &[sight("car", 0.19)]).is_empty(), "0.9 of its width");
    }

    #[test]
    fn what_was_just_there_goes_before_what_was_not() {
        let objects = [awaited("car", 0.1, false), awaited("car", 0.13, true)];
        assert_eq!(assign(&objects, &[sight("car", 0.11)]), [(1, 0)]);
    }

    #[test]
    fn what_has_no_place_is_known_by_its_label() {
        let bare = |label| Sight { label, score: 0.5, area: None };
        let object = Awaited { label: "worn", area: None, seen_before: false };
        assert_eq!(assign(&[object], &[bare("new"), bare("worn")]), [(0, 1)]);
        assert!(assign(&[object], &[sight("worn", 0.1)]).is_empty());
    }
}
