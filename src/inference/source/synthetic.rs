//! The built-in camera: endless pictures of a conveyor belt with known truth, so that accuracy is
//! measured and not claimed.

use super::scene::Scene;
use super::{Next, Picture, Source, Trouble};
use crate::domain::FrameFormat;
use std::time::Duration;

pub use super::scene::{CLASSES, Truth, truth};

/// A camera over one belt.
pub struct Synthetic {
    seed: u64,
    width: u32,
    height: u32,
    scene: Scene,
}

impl Synthetic {
    /// The belt `seed` in pictures of `width` × `height` pixels; both are at least 16.
    pub fn new(seed: u64, width: u32, height: u32) -> Self {
        let (width, height) = (width.max(16), height.max(16));
        Self { seed, width, height, scene: Scene::new(seed, width, height) }
    }
}

impl Source for Synthetic {
    fn describe(&self) -> String {
        format!("synthetic belt, seed {}, {}×{}", self.seed, self.width, self.height)
    }

    fn next(&mut self, seq: u64, into: &mut Vec<u8>, _wait: Duration) -> Result<Next, Trouble> {
        self.scene.draw(seq, into);
        Ok(Next::Picture(Picture::now(self.width, self.height, FrameFormat::Rgb8)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn picture(seed: u64, seq: u64, width: u32, height: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        let Ok(Next::Picture(picture)) =
            Synthetic::new(seed, width, height).next(seq, &mut bytes, Duration::ZERO)
        else {
            panic!("the scene can always be drawn")
        };
        assert_eq!(picture.format.exact_len(picture.width, picture.height), Some(bytes.len()));
        bytes
    }

    #[test]
    fn a_picture_depends_on_seed_and_number_and_nothing_else() {
        let first = picture(1, 7, 320, 240);
        assert_eq!(first, picture(1, 7, 320, 240));
        assert_ne!(first, picture(1, 8, 320, 240));
        assert_ne!(first, picture(2, 7, 320, 240));
    }

    /// The committed models were trained on these very pictures; every machine must draw them alike.
    #[test]
    fn every_machine_draws_the_same_bytes() {
        let digest = hex::encode(Sha256::digest(picture(5, 1234, 320, 240)));
        assert_eq!(digest, "36c625029af7eeca7650364df2739c61b11e8845c2c1cda339acebfa4afcc8c0");
    }

    #[test]
    fn truths_are_inside_and_follow_the_belt() {
        for seed in 0..20 {
            for (width, height) in [(320, 240), (640, 480), (160, 120), (641, 359)] {
                let truths = truth(seed, 1 + seed * 37, width, height);
                assert!((1..30).contains(&truths.len()), "{} parts", truths.len());
                for part in &truths {
                    let [x0, y0, x1, y1] = part.bbox;
                    assert!(0.0 <= x0 && x0 < x1 && x1 <= width as f32, "{part:?}");
                    assert!(0.0 <= y0 && y0 < y1 && y1 <= height as f32, "{part:?}");
                    assert!(
                        part.visible > 0.0
                            && part.visible <= 1.0
                            && CLASSES[part.class as usize] == part.label
                    );
                }
            }
        }
        // One picture on, a part that was whole has moved by 12 of 640 of the width.
        let before = truth(3, 100, 640, 480);
        let after = truth(3, 101, 640, 480);
        let part = before.iter().find(|part| part.bbox[0] > 10.0 && part.bbox[2] < 600.0).unwrap();
        assert!(after.iter().any(|p| p.bbox[0] == part.bbox[0] + 12.0 && p.bbox[1] == part.bbox[1]));
    }

    #[test]
    fn the_truth_of_another_size_is_the_same_scene() {
        let small = truth(9, 50, 320, 240);
        let large = truth(9, 50, 640, 480);
        assert_eq!(small.len(), large.len());
        for (s, l) in small.iter().zip(&large) {
            assert_eq!(s.class, l.class);
            assert!(s.bbox.iter().zip(l.bbox).all(|(a, b)| (a * 2.0 - b).abs() < 0.01));
        }
    }

    #[test]
    fn huge_numbers_and_odd_sizes_are_drawn_too() {
        for (seq, width, height) in [(u64::MAX, 320, 240), (0, 16, 16), (1 << 39, 33, 2000), (1, 1920, 17)] {
            picture(u64::MAX, seq, width, height);
            truth(u64::MAX, seq, width, height);
        }
    }
}
