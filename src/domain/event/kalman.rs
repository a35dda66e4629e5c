//! Where a box will be: a Kalman filter with constant velocity for its centre, and one without for its width and
//! height. The axes are taken as independent, as the sorts of this tracker do (SORT, ByteTrack); so each is
//! two numbers and their covariance in closed form. Lengths are shares of the picture, time is seconds; the
//! noise is in proportion to the box, so that it is the same near and far.

/// How far a detector is off, as a share of the box's own size (one standard deviation).
const OFF: f64 = 0.05;
/// How much the velocity changes in a second, in box sizes a second.
const SWERVE: f64 = 1.5;
/// How much the size changes in a second, as a share of it.
const GROW: f64 = 0.5;
/// Velocity of what was seen once, in box sizes a second.
const UNKNOWN: f64 = 3.0;
/// A longer time between two frames counts as this one, seconds: what an object does in it nobody knows.
const LONGEST: f64 = 1.0;
/// An object out of sight loses its velocity in about this time, seconds: else one that stood and
/// trembled would wander off.
const COAST: f64 = 1.0;
/// How far from the picture a middle may be, in pictures.
const FARTHEST: f64 = 8.0;
/// Highest velocity, pictures a second.
const FASTEST: f64 = 10.0;
/// Smallest width and height, shares of the picture.
const LEAST: f64 = 1e-4;

/// A position and its velocity, with their covariance.
#[derive(Debug, Clone, Copy)]
struct Axis {
    at: f64,
    speed: f64,
    at_at: f64,
    at_speed: f64,
    speed_speed: f64,
}

impl Axis {
    fn new(at: f64, size: f64) -> Self {
        let unknown = UNKNOWN * size;
        Self { at, speed: 0.0, at_at: (OFF * size).powi(2), at_speed: 0.0, speed_speed: unknown * unknown }
    }

    fn predict(&mut self, dt: f64, size: f64) {
        let q = (SWERVE * size).powi(2);
        self.at += self.speed * dt;
        self.at_at += 2.0 * dt * self.at_speed + dt * dt * self.speed_speed + q * dt * dt * dt / 3.0;
        self.at_speed += dt * self.speed_speed + q * dt * dt / 2.0;
        self.speed_speed = (self.speed_speed + q * dt).min((UNKNOWN * size).powi(2));
        self.keep_sense();
    }

    /// Keeps the numbers those of a thing in a picture, however long it was not seen and whatever was.
    fn keep_sense(&mut self) {
        self.at = self.at.clamp(-FARTHEST, 1.0 + FARTHEST);
        self.speed = self.speed.clamp(-FASTEST, FASTEST);
        self.at_at = self.at_at.min(1.0);
        let most = (self.at_at * self.speed_speed).max(0.0).sqrt();
        self.at_speed = self.at_speed.clamp(-most, most);
    }

    fn correct(&mut self, seen: f64, size: f64) {
        let all = self.at_at + (OFF * size).powi(2);
        let (of_at, of_speed) = (self.at_at / all, self.at_speed / all);
        let off = seen - self.at;
        self.at += of_at * off;
        self.speed += of_speed * off;
        self.speed_speed = (self.speed_speed - of_speed * self.at_speed).max(0.0);
        self.at_speed *= 1.0 - of_at;
        self.at_at *= 1.0 - of_at;
        self.keep_sense();
    }
}

/// A length that may change at random.
#[derive(Debug, Clone, Copy)]
struct Length {
    is: f64,
    variance: f64,
}

impl Length {
    fn new(is: f64) -> Self {
        let is = is.max(LEAST);
        Self { is, variance: (OFF * is).powi(2) }
    }

    fn predict(&mut self, dt: f64) {
        self.variance = (self.variance + (GROW * self.is).powi(2) * dt).min(self.is * self.is);
    }

    fn correct(&mut self, seen: f64) {
        let share = self.variance / (self.variance + (OFF * self.is).powi(2));
        self.is = (self.is + share * (seen - self.is)).max(LEAST);
        self.variance *= 1.0 - share;
    }
}

/// A box on its way. Boxes are left, top, right, bottom as shares of the picture; finite, and right of left and
/// below top.
#[derive(Debug, Clone, Copy)]
pub struct Filter {
    x: Axis,
    y: Axis,
    width: Length,
    height: Length,
}

impl Filter {
    /// A box that was seen for the first time.
    pub fn new(area: [f64; 4]) -> Self {
        let (width, height) = (Length::new(area[2] - area[0]), Length::new(area[3] - area[1]));
        let size = (width.is * height.is).sqrt();
        let (x, y) = centre(area);
        Self { x: Axis::new(x, size), y: Axis::new(y, size), width, height }
    }

    /// Goes on by `seconds`.
    pub fn predict(&mut self, seconds: f64) {
        let dt = seconds.clamp(0.0, LONGEST);
        let size = self.size();
        self.x.predict(dt, size);
        self.y.predict(dt, size);
        self.width.predict(dt);
        self.height.predict(dt);
    }

    /// It was seen here.
    pub fn correct(&mut self, area: [f64; 4]) {
        let (x, y) = centre(area);
        self.width.correct(area[2] - area[0]);
        self.height.correct(area[3] - area[1]);
        let size = self.size();
        self.x.correct(x, size);
        self.y.correct(y, size);
    }

    /// It was not seen in a frame that came `seconds` after the one before.
    pub fn coast(&mut self, seconds: f64) {
        let slower = (-seconds.clamp(0.0, LONGEST) / COAST).exp();
        self.x.speed *= slower;
        self.y.speed *= slower;
    }

    /// Where it is taken to be.
    pub fn area(&self) -> [f64; 4] {
        let (half_width, half_height) = (self.width.is / 2.0, self.height.is / 2.0);
        [self.x.at - half_width, self.y.at - half_height, self.x.at + half_width, self.y.at + half_height]
    }

    fn size(&self) -> f64 {
        (self.width.is * self.height.is).sqrt()
    }
}

fn centre([left, top, right, bottom]: [f64; 4]) -> (f64, f64) {
    ((left + right) / 2.0, (top + bottom) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(x: f64, y: f64) -> [f64; 4] {
        [x - 0.05, y - 0.05, x + 0.05, y + 0.05]
    }

    #[test]
    fn what_moves_evenly_is_awaited_where_it_will_be() {
        let mut filter = Filter::new(at(0.1, 0.5));
        for n in 1..=20 {
            filter.predict(0.1);
            filter.correct(at(0.1 + 0.03 * f64::from(n), 0.5));
        }
        filter.predict(0.1);
        let ahead = filter.area();
        let wanted = at(0.1 + 0.03 * 21.0, 0.5);
        assert!(ahead.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 0.01), "{ahead:?} for {wanted:?}");
    }

    #[test]
    fn what_is_out_of_sight_comes_to_rest() {
        let mut filter = Filter::new(at(0.1, 0.5));
        for n in 1..=10 {
            filter.predict(0.1);
            filter.correct(at(0.1 + 0.02 * f64::from(n), 0.5));
        }
        for _ in 0..1000 {
            filter.predict(0.1);
            filter.coast(0.1);
        }
        let [left, ..] = filter.area();
        assert!(left < 0.6, "{left}: about as far as it comes in a second and a bit");
    }

    proptest! {
        #[test]
        fn it_stays_finite_whatever_comes(
            steps in proptest::collection::vec((0.0..100.0_f64, -1.0..2.0_f64, -1.0..2.0_f64, 1e-9..1.0_f64, 1e-9..1.0_f64, any::<bool>()), 1..200)
        ) {
            let mut filter = Filter::new([0.0, 0.0, 1e-9, 1.0]);
            for (dt, x, y, width, height, seen) in steps {
                filter.predict(dt);
                if seen {
                    filter.correct([x, y, x + width, y + height]);
                } else {
                    filter.coast(dt);
                }
                let [left, top, right, bottom] = filter.area();
                prop_assert!([left, top, right, bottom].iter().all(|side| side.is_finite() && side.abs() < 100.0));
                prop_assert!(left < right && top < bottom);
            }
        }
    }
}
