//! Pictures that are still, move, flicker and change their light.

use super::*;

const W: usize = 160;
const H: usize = 120;
const S: u64 = 1_000_000_000;
const LEFT: [[f32; 2]; 4] = [[0.0, 0.0], [0.5, 0.0], [0.5, 1.0], [0.0, 1.0]];
const RIGHT: [[f32; 2]; 4] = [[0.5, 0.0], [1.0, 0.0], [1.0, 1.0], [0.5, 1.0]];

fn zone(area: &[[f32; 2]]) -> Zone {
    Zone { area: area.to_vec(), threshold: 15.0, min_area: 0.005 }
}

fn settings(zones: &[&[[f32; 2]]], ignore: &[&[[f32; 2]]]) -> MotionSettings {
    MotionSettings {
        zones: zones.iter().map(|area| zone(area)).collect(),
        ignore: ignore.iter().map(|area| area.to_vec()).collect(),
        hold_ms: 2000,
        keep_alive_ms: 10_000,
    }
}

/// A room with a gradient, in some light, with noise, and a bright box of 16 pixels at a place.
fn picture(light: f32, noise: u32, at: Option<(usize, usize)>) -> Vec<u8> {
    let mut dice = noise.wrapping_mul(2_654_435_761) | 1;
    let pixel = |i: usize| {
        dice ^= dice << 13;
        dice ^= dice >> 17;
        dice ^= dice << 5;
        let (x, y) = (i % W, i / W);
        let shade = 40.0 + 60.0 * (x as f32 / W as f32) + 30.0 * (y as f32 / H as f32);
        let object =
            at.is_some_and(|(left, top)| (left..left + 16).contains(&x) && (top..top + 16).contains(&y));
        let value = if object { 220.0 } else { shade } * light + (dice % 13) as f32 - 6.0;
        value.clamp(0.0, 255.0) as u8
    };
    (0..W * H).map(pixel).collect()
}

fn see(detector: &mut Detector, picture: &[u8], at_ns: u64) -> Scene {
    detector.see(Grey { width: W, height: H, values: picture }, at_ns)
}

#[test]
fn noise_is_still_and_a_thing_that_moves_is_seen_in_its_zone() {
    let mut detector = Detector::new(&settings(&[&LEFT, &RIGHT], &[]));
    assert_eq!(see(&mut detector, &picture(1.0, 0, None), 0), Scene::New);
    for n in 1..50 {
        assert_eq!(see(&mut detector, &picture(1.0, n, None), u64::from(n) * S / 10), Scene::Still, "{n}");
    }
    assert_eq!(see(&mut detector, &picture(1.0, 50, Some((20, 40))), 5 * S), Scene::Moving(1));
    assert_eq!(see(&mut detector, &picture(1.0, 51, Some((120, 40))), 5 * S + 1), Scene::Moving(2));
    assert_eq!(
        see(&mut detector, &picture(1.0, 52, Some((72, 40))), 5 * S + 2),
        Scene::Moving(3),
        "on the border"
    );
}

#[test]
fn what_is_ignored_and_what_is_too_small_is_still() {
    let all = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    let mut detector = Detector::new(&settings(&[&all], &[&LEFT]));
    see(&mut detector, &picture(1.0, 0, None), 0);
    assert_eq!(see(&mut detector, &picture(1.0, 1, Some((20, 40))), S), Scene::Still);
    assert_eq!(see(&mut detector, &picture(1.0, 2, Some((120, 40))), S), Scene::Moving(1));
    let mut large = settings(&[&all], &[]);
    large.zones[0].min_area = 0.1;
    let mut detector = Detector::new(&large);
    see(&mut detector, &picture(1.0, 0, None), 0);
    assert_eq!(see(&mut detector, &picture(1.0, 1, Some((20, 40))), S), Scene::Still, "1.3 % of the picture");
}

#[test]
fn a_corner_of_a_polygon_is_inside_and_the_rest_is_not() {
    let triangle = vec![[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]];
    assert!(inside(&triangle, [0.2, 0.2]) && inside(&triangle, [0.49, 0.49]));
    assert!(!inside(&triangle, [0.6, 0.6]) && !inside(&Vec::new(), [0.5, 0.5]));
}

#[test]
fn light_that_changes_is_no_motion_and_another_scene_is_new_once() {
    let all = [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]];
    let mut detector = Detector::new(&settings(&[&all], &[]));
    see(&mut detector, &picture(1.0, 0, None), 0);
    for (n, light) in [0.9, 0.7, 0.55, 0.8, 1.0, 1.3, 1.6].into_iter().enumerate() {
        let now = S + n as u64 * S / 10;
        assert_eq!(see(&mut detector, &picture(light, n as u32, None), now), Scene::Still, "light {light}");
        assert_eq!(
            see(&mut detector, &picture(light, n as u32, Some((60, 60))), now),
            Scene::Moving(1),
            "{light}"
        );
    }
    let upside_down: Vec<u8> = picture(1.0, 1, None).iter().map(|value| 255 - value).collect();
    assert_eq!(see(&mut detector, &upside_down, 3 * S), Scene::New);
    assert_eq!(see(&mut detector, &upside_down, 4 * S), Scene::Still, "learned at once");
}

#[test]
fn what_stays_becomes_the_background() {
    let mut detector = Detector::new(&settings(&[&LEFT], &[]));
    see(&mut detector, &picture(1.0, 0, None), 0);
    let scenes: Vec<Scene> = (1..1200)
        .map(|n| see(&mut detector, &picture(1.0, n, Some((20, 40))), u64::from(n) * S / 10))
        .collect();
    assert_eq!(scenes[0], Scene::Moving(1));
    assert_eq!(*scenes.last().unwrap(), Scene::Still, "a parked car");
}

#[test]
fn a_picture_of_another_size_or_of_none_is_new() {
    let mut detector = Detector::new(&settings(&[&LEFT], &[]));
    see(&mut detector, &picture(1.0, 0, None), 0);
    assert_eq!(detector.see(Grey { width: 1, height: 1, values: &[7] }, 1), Scene::New);
    assert_eq!(detector.see(Grey { width: 9, height: 9, values: &[] }, 2), Scene::New);
    assert_eq!(detector.see(Grey { width: 1, height: 1, values: &[7] }, 3), Scene::Still);
}

#[test]
fn the_gate_opens_for_motion_holds_and_gives_a_sign_of_life() {
    let mut gate = Gate::new(&settings(&[&LEFT], &[]));
    let through: Vec<u64> = (0..40)
        .filter(|second| {
            let scene = match second {
                0 => Scene::New,
                15 => Scene::Moving(1),
                _ => Scene::Still,
            };
            gate.open(scene, second * S)
        })
        .collect();
    // The first; the sign of life at 10; motion at 15, held for 2 s; then every 10 s.
    assert_eq!(through, [0, 10, 15, 16, 26, 36]);
}
