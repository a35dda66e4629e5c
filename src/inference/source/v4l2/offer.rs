//! What a camera offers, as values: formats, sizes, and times from frame to frame. Pure.

use crate::domain::FrameFormat;
use std::fmt;

/// The kernel's name of a format: four letters.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FourCc(pub u32);

impl FourCc {
    /// From its letters.
    pub const fn new(letters: &[u8; 4]) -> Self {
        Self(u32::from_le_bytes(*letters))
    }
}

impl fmt::Display for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letters =
            self.0.to_le_bytes().map(|byte| if byte.is_ascii_graphic() { byte as char } else { ' ' });
        f.write_str(letters.iter().collect::<String>().trim())
    }
}

impl fmt::Debug for FourCc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// A UVC camera's JPEGs.
pub const MJPG: FourCc = FourCc::new(b"MJPG");
/// 4:2:2 with the colour first; its bytes are swapped to YUYV while they are copied.
pub const UYVY: FourCc = FourCc::new(b"UYVY");

/// The formats that can be read, and what a frame of each becomes.
const READABLE: [(FourCc, FrameFormat); 8] = [
    (MJPG, FrameFormat::Jpeg),
    (FourCc::new(b"JPEG"), FrameFormat::Jpeg),
    (FourCc::new(b"YUYV"), FrameFormat::Yuyv),
    (UYVY, FrameFormat::Yuyv),
    (FourCc::new(b"NV12"), FrameFormat::Nv12),
    (FourCc::new(b"YU12"), FrameFormat::I420),
    (FourCc::new(b"GREY"), FrameFormat::Grey8),
    (FourCc::new(b"RGB3"), FrameFormat::Rgb8),
];

/// What a frame of a kernel's format becomes; `None` for one that is not read here.
pub fn readable(format: FourCc) -> Option<FrameFormat> {
    READABLE.iter().find(|(known, _)| *known == format).map(|(_, becomes)| *becomes)
}

/// The formats that can be read, for people.
pub fn readable_names() -> String {
    READABLE.map(|(format, _)| format.to_string()).join(", ")
}

/// Pixels across and down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Size {
    /// Across.
    pub width: u32,
    /// Down.
    pub height: u32,
}

impl Size {
    /// Joins the two.
    pub const fn new(width: u32, height: u32) -> Self {
        Self { width, height }
    }

    /// Pixels.
    pub fn area(self) -> u64 {
        u64::from(self.width) * u64::from(self.height)
    }

    /// At least as large as the other in both directions.
    pub fn covers(self, other: Self) -> bool {
        self.width >= other.width && self.height >= other.height
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}×{}", self.width, self.height)
    }
}

/// Lengths from the least to the greatest in steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// Least.
    pub min: u32,
    /// Greatest.
    pub max: u32,
    /// Step; zero counts as one.
    pub step: u32,
}

impl Range {
    /// One length.
    pub const fn only(value: u32) -> Self {
        Self { min: value, max: value, step: 1 }
    }

    /// The length itself where the range has it, else the next greater one, else the greatest.
    fn nearest(self, wanted: u32) -> u32 {
        let (min, step) = (self.min, self.step.max(1));
        let max = self.max.max(min);
        // The greatest that the steps reach.
        let last = min + (max - min) / step * step;
        match wanted {
            wanted if wanted <= min => min,
            wanted if wanted >= last => last,
            wanted => min + (wanted - min).div_ceil(step) * step,
        }
    }
}

/// One size, or all between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// Across.
    pub width: Range,
    /// Down.
    pub height: Range,
}

impl Sizes {
    /// The one of them that is nearest to what is wanted.
    pub fn nearest(self, wanted: Size) -> Size {
        Size::new(self.width.nearest(wanted.width), self.height.nearest(wanted.height))
    }
}

/// Time from one frame to the next. Longer than zero, and exact as the kernel has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    numerator: u32,
    denominator: u32,
}

impl Interval {
    /// Seconds as a fraction; `None` where that makes no sense.
    pub fn new(numerator: u32, denominator: u32) -> Option<Self> {
        (numerator > 0 && denominator > 0).then_some(Self { numerator, denominator })
    }

    /// That of a rate, to a thousandth of a frame a second.
    pub fn of_rate(per_second: f32) -> Self {
        let denominator = (f64::from(per_second) * 1000.0).round().clamp(1.0, 4e9) as u32;
        Self { numerator: 1000, denominator }
    }

    /// Seconds, numerator and denominator.
    pub fn fraction(self) -> (u32, u32) {
        (self.numerator, self.denominator)
    }

    /// Frames a second.
    pub fn rate(self) -> f32 {
        (f64::from(self.denominator) / f64::from(self.numerator)) as f32
    }
}

/// One time, or all between two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Intervals {
    /// Of the fastest rate.
    pub shortest: Interval,
    /// Of the slowest rate.
    pub longest: Interval,
}

impl Intervals {
    /// The slowest of them that is as fast as wanted, else the fastest.
    pub fn nearest(self, per_second: f32) -> Interval {
        match per_second {
            rate if rate >= self.shortest.rate() => self.shortest,
            rate if rate <= self.longest.rate() => self.longest,
            rate => Interval::of_rate(rate),
        }
    }
}

/// A way in which a camera can send its frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mode {
    /// The format.
    pub format: FourCc,
    /// The size.
    pub size: Size,
    /// Times from frame to frame; empty where the camera does not tell.
    pub intervals: Vec<Intervals>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_kept_and_a_length_outside_is_brought_in() {
        let range = Range { min: 32, max: 100, step: 16 };
        for (wanted, nearest) in
            [(0, 32), (32, 32), (33, 48), (48, 48), (90, 96), (96, 96), (97, 96), (9999, 96)]
        {
            assert_eq!(range.nearest(wanted), nearest, "{wanted}");
        }
        assert_eq!(Range { min: 10, max: 20, step: 0 }.nearest(15), 15);
        // A driver that writes nonsense.
        assert_eq!(Range { min: 10, max: 5, step: 3 }.nearest(7), 10);
        let odd = Sizes { width: Range { min: 2, max: u32::MAX, step: 2 }, height: Range::only(48) };
        assert_eq!(odd.nearest(Size::new(641, 480)), Size::new(642, 48));
    }

    #[test]
    fn the_nearest_time_is_the_slowest_that_is_fast_enough() {
        let between =
            Intervals { shortest: Interval::new(1, 60).unwrap(), longest: Interval::new(1, 5).unwrap() };
        assert_eq!(between.nearest(100.0), between.shortest);
        assert_eq!(between.nearest(0.5), between.longest);
        assert!((between.nearest(12.5).rate() - 12.5).abs() < 1e-3);
        assert_eq!((Interval::new(0, 1), Interval::new(1, 0)), (None, None));
        assert_eq!(Interval::of_rate(0.0).fraction(), (1000, 1), "never a division by zero");
    }

    #[test]
    fn letters_are_shown_and_nothing_else() {
        assert_eq!(FourCc::new(b"Y8  ").to_string(), "Y8");
        assert_eq!(FourCc(0x0100_0a41).to_string(), "A");
        assert_eq!(readable(FourCc::new(b"H264")), None);
        assert_eq!(readable(FourCc::new(b"YU12")), Some(FrameFormat::I420));
    }
}
