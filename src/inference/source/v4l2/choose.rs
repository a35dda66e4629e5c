//! Which of the ways that a camera offers is taken. Pure.
//!
//! In this order: the wanted size exactly, else the least larger one, else the largest; then one that
//! reaches the wanted pace; then the format. A raw format costs the least work, but at a large size it
//! takes more of a USB bus than the bus has, or leaves nothing for a second camera: there the JPEGs
//! of the camera are taken. Of several rates that are fast enough the slowest is taken: what is left
//! out later would have been carried for nothing.

use super::offer::{FourCc, Interval, Mode, Size, readable, readable_names};
use crate::domain::FrameFormat;
use crate::domain::frame::MAX_FRAME;
use std::cmp::Ordering;

/// Bytes a second of raw frames that are cheap on USB. A USB 2 camera can send 24 million.
const CHEAP: f64 = 20e6;
/// Rates are told by drivers in whole ticks of some clock.
const RATE_TOLERANCE: f32 = 0.98;
/// Words of a list that are told to people.
const MAX_TOLD: usize = 8;

/// What is wanted of a camera.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Wanted {
    /// Pixels.
    pub size: Size,
    /// Frames a second.
    pub rate: f32,
    /// Only this format.
    pub format: Option<FrameFormat>,
    /// The camera is on a USB bus, which is narrow.
    pub usb: bool,
}

/// What is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// The kernel's format.
    pub format: FourCc,
    /// What its frames become.
    pub becomes: FrameFormat,
    /// Pixels.
    pub size: Size,
    /// Time from frame to frame to ask for; `None` where the camera tells none.
    pub interval: Option<Interval>,
}

/// Chooses.
///
/// # Errors
/// What is offered, and that nothing of it suits.
pub fn choose(modes: &[Mode], wanted: &Wanted) -> Result<Choice, String> {
    let suits = |choice: &Choice| wanted.format.is_none_or(|format| format == choice.becomes);
    let possible = modes.iter().filter_map(|mode| possible(mode, wanted.rate)).filter(suits);
    let order =
        |a: &Choice, b: &Choice| rank(a, wanted).partial_cmp(&rank(b, wanted)).unwrap_or(Ordering::Equal);
    possible.min_by(order).ok_or_else(|| {
        let all = offered(modes);
        match wanted.format {
            _ if modes.is_empty() => "offers no format at all".to_owned(),
            Some(format) => {
                format!("does not offer {} in a size that can be carried; it offers {all}", name(format))
            }
            None => {
                format!("offers none of {} in a size that can be carried; it offers {all}", readable_names())
            }
        }
    })
}

/// A mode at its best rate, where its frames can be read and carried.
fn possible(mode: &Mode, rate: f32) -> Option<Choice> {
    let becomes = readable(mode.format)?;
    let nearest = mode.intervals.iter().map(|intervals| intervals.nearest(rate));
    let interval = nearest.min_by(|a, b| pace(a.rate(), rate).total_cmp(&pace(b.rate(), rate)));
    carried(becomes, mode.size).then_some(Choice { format: mode.format, becomes, size: mode.size, interval })
}

/// Whether frames of this format can have this size, and are not too large to be carried.
pub fn carried(format: FrameFormat, size: Size) -> bool {
    let Size { width, height } = size;
    let even = |value: u32| value.is_multiple_of(2);
    let whole = match format {
        FrameFormat::Yuyv => even(width),
        FrameFormat::Nv12 | FrameFormat::I420 => even(width) && even(height),
        FrameFormat::Jpeg | FrameFormat::Rgb8 | FrameFormat::Grey8 => true,
        FrameFormat::Samples => false,
    };
    let bytes = size.area() as f64 * bytes_per_pixel(format);
    whole && size.area() > 0 && bytes <= MAX_FRAME as f64
}

/// Order among rates: those that are fast enough by how fast they are, then the others, the fastest first.
fn pace(rate: f32, wanted: f32) -> f64 {
    match rate >= wanted * RATE_TOLERANCE {
        true => f64::from(rate),
        false => 1e9 - f64::from(rate),
    }
}

/// Class of the size (exact, larger, smaller), distance in size, too slow by how much, cost of the
/// format, pace; the smallest is the best.
type Rank = (u8, u64, f64, f64, f64);

fn rank(choice: &Choice, wanted: &Wanted) -> Rank {
    let (class, distance) = match choice.size {
        size if size == wanted.size => (0, 0),
        size if size.covers(wanted.size) => (1, size.area()),
        size => (2, u64::MAX - size.area()),
    };
    // One that does not tell its rate may be fast enough.
    let rate = choice.interval.map_or(wanted.rate, Interval::rate);
    let pace = pace(rate, wanted.rate);
    let slow = if rate >= wanted.rate * RATE_TOLERANCE { 0.0 } else { pace };
    let bytes = bytes_per_pixel(choice.becomes);
    let cost = match choice.becomes {
        FrameFormat::Jpeg => 10.0,
        // Without colour, which a model may need.
        FrameFormat::Grey8 => 20.0,
        _ if wanted.usb && choice.size.area() as f64 * bytes * f64::from(rate) > CHEAP => 15.0 + bytes,
        _ => bytes,
    };
    (class, distance, slow, cost, pace)
}

/// Bytes a pixel; of a JPEG more than it ever has.
fn bytes_per_pixel(format: FrameFormat) -> f64 {
    match format {
        FrameFormat::Jpeg | FrameFormat::Grey8 => 1.0,
        FrameFormat::Nv12 | FrameFormat::I420 => 1.5,
        FrameFormat::Yuyv => 2.0,
        FrameFormat::Rgb8 => 3.0,
        FrameFormat::Samples => 4.0,
    }
}

/// The configuration's word for a format.
pub fn name(format: FrameFormat) -> &'static str {
    match format {
        FrameFormat::Jpeg => "mjpeg",
        FrameFormat::Rgb8 => "rgb",
        FrameFormat::Grey8 => "grey",
        FrameFormat::Yuyv => "yuyv",
        FrameFormat::Nv12 => "nv12",
        FrameFormat::I420 => "i420",
        FrameFormat::Samples => "samples",
    }
}

/// What is offered, for people: each format that can be read with its sizes and their highest rates,
/// and the names of the others.
pub fn offered(modes: &[Mode]) -> String {
    let (mut known, mut others): (Vec<FourCc>, Vec<FourCc>) = (Vec::new(), Vec::new());
    for mode in modes {
        let list = if readable(mode.format).is_some() { &mut known } else { &mut others };
        if !list.contains(&mode.format) {
            list.push(mode.format);
        }
    }
    let with_sizes = |format: FourCc| {
        let of_format = modes.iter().filter(|mode| mode.format == format);
        let mut sizes: Vec<String> = of_format.map(told).collect();
        sizes.dedup();
        format!("{format} {}", shortened(sizes, " "))
    };
    let mut told: Vec<String> = known.into_iter().map(with_sizes).collect();
    if !others.is_empty() {
        let names = others.into_iter().map(|format| format.to_string()).collect();
        told.push(format!("formats that cannot be read: {}", shortened(names, " ")));
    }
    if told.is_empty() { "nothing".to_owned() } else { told.join(", ") }
}

/// The first few, and how many are left.
fn shortened(mut words: Vec<String>, between: &str) -> String {
    let all = words.len();
    words.truncate(MAX_TOLD);
    if all > MAX_TOLD {
        words.push(format!("and {} more", all - MAX_TOLD));
    }
    words.join(between)
}

fn told(mode: &Mode) -> String {
    let rates = mode.intervals.iter().map(|intervals| intervals.shortest.rate());
    match rates.reduce(f32::max) {
        Some(rate) => format!("{}@{}", mode.size, rounded(rate)),
        None => mode.size.to_string(),
    }
}

/// A rate for people: at most two places.
pub fn rounded(rate: f32) -> f32 {
    (rate * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::super::offer::Intervals;
    use super::*;

    fn mode(format: &[u8; 4], width: u32, height: u32, rates: &[u32]) -> Mode {
        let interval = |rate: &u32| Interval::new(1, *rate).unwrap();
        let intervals = rates
            .iter()
            .map(|rate| Intervals { shortest: interval(rate), longest: interval(rate) })
            .collect();
        Mode { format: FourCc::new(format), size: Size::new(width, height), intervals }
    }

    /// A usual USB camera: raw frames get slow as they get large.
    fn webcam() -> Vec<Mode> {
        vec![
            mode(b"MJPG", 1920, 1080, &[30, 15]),
            mode(b"MJPG", 1280, 720, &[30, 15]),
            mode(b"MJPG", 640, 480, &[30, 15]),
            mode(b"YUYV", 1920, 1080, &[5]),
            mode(b"YUYV", 1280, 720, &[10]),
            mode(b"YUYV", 640, 480, &[30, 25, 15, 5]),
            mode(b"YUYV", 320, 240, &[30]),
        ]
    }

    fn wanted(width: u32, height: u32, rate: f32) -> Wanted {
        Wanted { size: Size::new(width, height), rate, format: None, usb: true }
    }

    /// What is chosen, in one line.
    fn chosen(modes: &[Mode], wanted: &Wanted) -> String {
        match choose(modes, wanted) {
            Ok(choice) => {
                let rate = choice.interval.map_or(0.0, Interval::rate);
                format!("{} {} {}", choice.format, choice.size, rounded(rate))
            }
            Err(why) => why,
        }
    }

    #[test]
    fn of_a_usual_camera_the_right_mode_is_taken() {
        for (width, height, rate, taken) in [
            // Raw where it is cheap, at the slowest rate that is fast enough.
            (640, 480, 15.0, "YUYV 640×480 15"),
            (640, 480, 1.0, "YUYV 640×480 5"),
            (640, 480, 16.0, "YUYV 640×480 25"),
            (640, 480, 30.0, "YUYV 640×480 30"),
            // Raw is too slow, or as fast as wanted.
            (1280, 720, 15.0, "MJPG 1280×720 15"),
            (1280, 720, 10.0, "YUYV 1280×720 10"),
            // Raw would be fast enough, but fill the bus: 1920 × 1080 × 2 bytes × 5.
            (1920, 1080, 5.0, "MJPG 1920×1080 15"),
            // Nothing is as fast: the fastest.
            (640, 480, 120.0, "YUYV 640×480 30"),
            (1280, 720, 120.0, "MJPG 1280×720 30"),
            // The size is not there: the next larger one; beyond the largest, the largest.
            (500, 400, 15.0, "YUYV 640×480 15"),
            (640, 500, 15.0, "MJPG 1280×720 15"),
            (4000, 3000, 15.0, "MJPG 1920×1080 15"),
            (1, 1, 15.0, "YUYV 320×240 30"),
        ] {
            assert_eq!(chosen(&webcam(), &wanted(width, height, rate)), taken, "{width}×{height}@{rate}");
        }
    }

    #[test]
    fn away_from_usb_raw_is_always_cheap() {
        let wanted = Wanted { usb: false, ..wanted(1920, 1080, 5.0) };
        assert_eq!(chosen(&webcam(), &wanted), "YUYV 1920×1080 5");
    }

    #[test]
    fn a_wish_for_a_format_is_kept_or_refused() {
        let only = |format| Wanted { format: Some(format), ..wanted(640, 480, 15.0) };
        assert_eq!(chosen(&webcam(), &only(FrameFormat::Jpeg)), "MJPG 640×480 15");
        assert_eq!(
            chosen(&webcam(), &only(FrameFormat::Nv12)),
            "does not offer nv12 in a size that can be carried; it offers MJPG 1920×1080@30 1280×720@30 \
             640×480@30, YUYV 1920×1080@5 1280×720@10 640×480@30 320×240@30"
        );
    }

    /// Every pair of formats at one size: which of the two is taken.
    #[test]
    fn among_raw_formats_colour_with_the_fewest_bytes_is_taken() {
        let order: [&[u8; 4]; 8] = [b"NV12", b"YU12", b"YUYV", b"UYVY", b"RGB3", b"MJPG", b"JPEG", b"GREY"];
        for (best, first) in order.iter().enumerate() {
            for second in &order[best + 1..] {
                let modes = [mode(first, 320, 240, &[15]), mode(second, 320, 240, &[15])];
                assert_eq!(
                    chosen(&modes, &wanted(320, 240, 15.0)),
                    format!("{} 320×240 15", modes[0].format)
                );
                let unlike = readable(modes[0].format).map(bytes_per_pixel)
                    != readable(modes[1].format).map(bytes_per_pixel);
                if unlike {
                    let turned = [modes[1].clone(), modes[0].clone()];
                    let taken = chosen(&turned, &wanted(320, 240, 15.0));
                    assert_eq!(taken, format!("{} 320×240 15", modes[0].format));
                }
            }
        }
    }

    #[test]
    fn what_cannot_be_read_or_carried_is_never_taken() {
        let modes = [
            mode(b"H264", 640, 480, &[30]),
            mode(b"YUYV", 641, 480, &[30]),
            mode(b"NV12", 640, 481, &[30]),
            mode(b"RGB3", 8000, 6000, &[30]),
            mode(b"MJPG", u32::MAX, u32::MAX, &[30]),
            mode(b"GREY", 0, 480, &[30]),
        ];
        let why = chosen(&modes, &wanted(640, 480, 15.0));
        assert!(
            why.starts_with("offers none of MJPG, JPEG, YUYV, UYVY, NV12, YU12, GREY, RGB3 in a size"),
            "{why}"
        );
        assert!(why.contains("it offers YUYV 641×480@30, NV12 640×481@30, "), "{why}");
        assert!(why.ends_with(", formats that cannot be read: H264"), "{why}");
        assert_eq!(chosen(&[], &wanted(640, 480, 15.0)), "offers no format at all");
        assert_eq!(offered(&[]), "nothing");
        let odd = [mode(b"GREY", 641, 481, &[])];
        assert_eq!(chosen(&odd, &wanted(640, 480, 15.0)), "GREY 641×481 0", "a camera need not tell rates");
    }

    #[test]
    fn a_long_list_is_cut_short() {
        let sizes: Vec<Mode> = (1..50).map(|n| mode(b"GREY", n, n, &[])).collect();
        assert!(offered(&sizes).ends_with(" 7×7 8×8 and 41 more"), "{}", offered(&sizes));
        let formats: Vec<Mode> = (b'A'..=b'Z').map(|n| mode(&[n; 4], 8, 8, &[])).collect();
        let told = offered(&formats);
        assert_eq!(told, "formats that cannot be read: AAAA BBBB CCCC DDDD EEEE FFFF GGGG HHHH and 18 more");
    }
}
