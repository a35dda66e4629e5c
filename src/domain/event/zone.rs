//! Named parts of the picture.

use super::super::id::ZoneName;
use super::super::motion::Area;

/// Zones of a pipeline at most.
pub const MAX_ZONES: usize = 16;

/// A named part of the picture. An object is in it when the middle of its box's lower edge is: where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Zone {
    /// Its name.
    pub name: ZoneName,
    /// A polygon in shares of the picture's width and height.
    pub area: Area,
    /// Labels that it is for; none: all.
    pub classes: Vec<String>,
    /// What is in it begins no event.
    pub exclude: bool,
}

impl Zone {
    /// Whether it is for objects of this label.
    pub fn is_for(&self, label: &str) -> bool {
        self.classes.is_empty() || self.classes.iter().any(|class| class == label)
    }

    /// Whether an object with this box (left, top, right, bottom as shares) stands in it. A box that goes
    /// below the picture stands on its lower edge.
    pub fn holds(&self, [left, _, right, bottom]: [f64; 4]) -> bool {
        inside(&self.area, (left + right) / 2.0, bottom.clamp(0.0, 1.0))
    }
}

/// Whether a point is inside a polygon or on its edge, by the number of edges that a ray to the right crosses.
fn inside(area: &[[f32; 2]], x: f64, y: f64) -> bool {
    let corner = |at: usize| [f64::from(area[at][0]), f64::from(area[at][1])];
    let mut is_inside = false;
    for at in 0..area.len() {
        let ([ax, ay], [bx, by]) = (corner(at), corner((at + 1) % area.len()));
        let cross = (bx - ax) * (y - ay) - (by - ay) * (x - ax);
        let between = |p: f64, a: f64, b: f64| p >= a.min(b) && p <= a.max(b);
        if cross.abs() < 1e-9 && between(x, ax, bx) && between(y, ay, by) {
            return true;
        }
        if (ay > y) != (by > y) && x < ax + (y - ay) / (by - ay) * (bx - ax) {
            is_inside = !is_inside;
        }
    }
    is_inside
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(area: &[[f32; 2]]) -> Zone {
        Zone { name: "z".parse().unwrap(), area: area.to_vec(), classes: vec![], exclude: false }
    }

    #[test]
    fn an_object_stands_where_the_middle_of_its_lower_edge_is() {
        let lower = zone(&[[0.0, 0.5], [1.0, 0.5], [1.0, 1.0], [0.0, 1.0]]);
        assert!(lower.holds([0.1, 0.0, 0.3, 0.6]), "its feet are in it");
        assert!(!lower.holds([0.1, 0.0, 0.3, 0.4]));
        assert!(lower.holds([0.1, 0.0, 0.3, 0.5]), "the edge counts");
        assert!(lower.holds([0.1, 0.0, 0.3, 1.2]), "cut off below");
        assert!(!lower.holds([-0.3, 0.0, 0.1, 0.9]), "its middle is outside the picture");
        // Hollow on one side.
        let bay = zone(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 0.5], [0.0, 1.0]]);
        assert!(bay.holds([0.0, 0.0, 0.2, 0.7]) && bay.holds([0.8, 0.0, 1.0, 0.7]));
        assert!(!bay.holds([0.4, 0.0, 0.6, 0.7]), "in the hollow");
    }

    #[test]
    fn no_point_makes_trouble() {
        let square = zone(&[[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]);
        for x in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1e300] {
            assert!(!square.holds([x, 0.0, x, 0.5]));
        }
        assert!(!zone(&[[0.5, 0.5]; 3]).holds([0.0, 0.0, 1.0, 1.0]), "a polygon without area");
    }

    #[test]
    fn a_zone_may_be_for_some_classes_only() {
        let zone = Zone { classes: vec!["car".into()], ..zone(&[[0.0, 0.0]; 3]) };
        assert!(zone.is_for("car") && !zone.is_for("person"));
    }
}
