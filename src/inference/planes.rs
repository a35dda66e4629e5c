//! A picture as its planes lie in memory, and the way from them to rows of red, green and blue (or of
//! luminance) at the size that a model wants.
//!
//! Rows are resized first and converted then, so that no pixel is converted that the tensor does not
//! hold, and a model that wants luminance never touches the colours. Interleaved formats (YUYV, NV12,
//! RGB) are read where they lie: a channel is an offset and a step in the rows of a plane.
//!
//! The resizing is OpenCV's `INTER_LINEAR`, which most models are trained and deployed with: two samples
//! across and two down around the middle of each pixel, whatever the scale. Colour is ITU-R BT.601, of
//! *limited* range (16 to 235) in the raw formats, as cameras, video decoders and Y4M give it, and of
//! *full* range in a JPEG (JFIF). Chroma samples are taken to lie in the middle of their pixels.

/// The span of the numbers of a YUV picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Range {
    /// Luminance 16 to 235, colour differences 16 to 240.
    Limited,
    /// All 0 to 255.
    Full,
}

/// What the channels of a picture are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colors {
    /// One channel of luminance, 0 to 255.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// Luminance, blue and red difference.
    Yuv(Range),
}

/// What is wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Want {
    /// Luminance.
    Grey,
    /// Red, green, blue.
    Rgb,
}

#[derive(Debug, Clone, Copy, Default)]
struct Plane<'a> {
    bytes: &'a [u8],
    /// Bytes of a row.
    stride: usize,
    rows: usize,
}

/// Where the samples of a channel are found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Channel {
    plane: usize,
    /// Of the first sample of a row, bytes.
    offset: usize,
    /// From one sample to the next, bytes.
    step: usize,
    /// Samples of a row.
    width: usize,
}

/// A borrowed picture, rows without padding.
#[derive(Debug, Clone, Copy)]
pub struct Planes<'a> {
    planes: [Plane<'a>; 3],
    channels: [Channel; 3],
    colors: Colors,
    /// Pixels across and down, as it lies here.
    pub size: (u32, u32),
    /// Pixels across and down of the picture as it was taken.
    pub original: (u32, u32),
}

impl<'a> Planes<'a> {
    fn new(colors: Colors, size: (u32, u32)) -> Self {
        Self { planes: Default::default(), channels: Default::default(), colors, size, original: size }
    }

    /// One byte a pixel.
    pub fn grey(bytes: &'a [u8], size: (u32, u32)) -> Self {
        let (width, height) = (size.0 as usize, size.1 as usize);
        let mut picture = Self::new(Colors::Grey, size);
        picture.planes[0] = Plane { bytes, stride: width, rows: height };
        picture.channels[0] = Channel { plane: 0, offset: 0, step: 1, width };
        picture
    }

    /// Red, green and blue in turn.
    pub fn rgb(bytes: &'a [u8], size: (u32, u32)) -> Self {
        let (width, height) = (size.0 as usize, size.1 as usize);
        let mut picture = Self::new(Colors::Rgb, size);
        picture.planes[0] = Plane { bytes, stride: 3 * width, rows: height };
        picture.channels = [0, 1, 2].map(|offset| Channel { plane: 0, offset, step: 3, width });
        picture
    }

    /// 4:2:2 in one plane: luminance, blue, luminance, red difference. The width is even.
    pub fn yuyv(bytes: &'a [u8], size: (u32, u32)) -> Self {
        let (width, height) = (size.0 as usize, size.1 as usize);
        let mut picture = Self::new(Colors::Yuv(Range::Limited), size);
        picture.planes[0] = Plane { bytes, stride: 2 * width, rows: height };
        picture.channels = [
            Channel { plane: 0, offset: 0, step: 2, width },
            Channel { plane: 0, offset: 1, step: 4, width: width / 2 },
            Channel { plane: 0, offset: 3, step: 4, width: width / 2 },
        ];
        picture
    }

    /// 4:2:0 in two planes, the second with blue and red difference in turn. Width and height are even.
    pub fn nv12(bytes: &'a [u8], size: (u32, u32)) -> Self {
        let (width, height) = (size.0 as usize, size.1 as usize);
        let (first, second) = bytes.split_at((width * height).min(bytes.len()));
        let mut picture = Self::new(Colors::Yuv(Range::Limited), size);
        picture.planes[0] = Plane { bytes: first, stride: width, rows: height };
        picture.planes[1] = Plane { bytes: second, stride: width, rows: height / 2 };
        picture.channels = [
            Channel { plane: 0, offset: 0, step: 1, width },
            Channel { plane: 1, offset: 0, step: 2, width: width / 2 },
            Channel { plane: 1, offset: 1, step: 2, width: width / 2 },
        ];
        picture
    }

    /// Three planes one after the other, the two of colour `chroma` (width, height) large.
    pub fn yuv(bytes: &'a [u8], size: (u32, u32), chroma: (usize, usize), range: Range) -> Self {
        let (width, height) = (size.0 as usize, size.1 as usize);
        let mut picture = Self::new(Colors::Yuv(range), size);
        let (first, rest) = bytes.split_at((width * height).min(bytes.len()));
        let (second, third) = rest.split_at((chroma.0 * chroma.1).min(rest.len()));
        picture.planes[0] = Plane { bytes: first, stride: width, rows: height };
        picture.planes[1] = Plane { bytes: second, stride: chroma.0, rows: chroma.1 };
        picture.planes[2] = Plane { bytes: third, stride: chroma.0, rows: chroma.1 };
        picture.channels = [
            Channel { plane: 0, offset: 0, step: 1, width },
            Channel { plane: 1, offset: 0, step: 1, width: chroma.0 },
            Channel { plane: 2, offset: 0, step: 1, width: chroma.0 },
        ];
        picture
    }

    /// The same, said to be a smaller version of a picture of that size.
    pub fn of_original(self, original: (u32, u32)) -> Self {
        Self { original, ..self }
    }

    /// The same without what its rows and columns have beyond `size`: a JPEG's planes hold whole pixels
    /// of the coarser colours.
    pub fn cropped(self, size: (u32, u32)) -> Self {
        let mut picture = Self { size, ..self };
        // The colours are as many samples as cover the picture, and stay.
        picture.channels[0].width = size.0 as usize;
        picture.planes[0].rows = size.1 as usize;
        picture
    }

    /// How many of its channels are looked at.
    fn used(&self, want: Want) -> usize {
        match (self.colors, want) {
            (Colors::Grey, _) | (Colors::Yuv(_), Want::Grey) => 1,
            (Colors::Rgb, _) | (Colors::Yuv(_), Want::Rgb) => 3,
        }
    }

    fn is_whole(&self, want: Want) -> bool {
        self.channels[..self.used(want)].iter().all(|channel| {
            let plane = &self.planes[channel.plane];
            channel.width > 0 && plane.rows > 0 && plane.bytes.len() >= plane.stride * plane.rows
        })
    }
}

/// The longest way from one sample of a channel to the next, bytes: that of the colours in YUYV.
const MOST_STEP: usize = 4;

/// Samples that are counted at once where they are fetched one by one.
const LANES: usize = 16;

/// Two neighbouring samples and the share of the second, in 256ths.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
struct Tap {
    at: u32,
    next: u32,
    share: u32,
}

impl Tap {
    /// For sample `i` of `count` that are spread over `length` samples from `start` on, of `all`.
    fn of(i: usize, count: u32, start: f64, length: f64, all: usize) -> Self {
        let middle = start + (i as f64 + 0.5) * length / f64::from(count) - 0.5;
        // What lies outside of the cut is not looked at, as if it had been cut out first.
        let (first, last) = (start.max(0.0).round(), (start + length).min(all as f64).round() - 1.0);
        let place = middle.clamp(first.min(last.max(0.0)), last.max(0.0));
        let at = place.floor();
        let share = ((place - at) * 256.0).round() as u32;
        let (at, last) = (at as usize, (last.max(0.0) as usize).min(all.saturating_sub(1)));
        Self { at: at.min(last) as u32, next: (at + 1).min(last) as u32, share }
    }
}

/// The taps of a row, each part in an array of its own.
#[derive(Debug, Default)]
struct Taps {
    /// Of the first of two neighbours.
    places: Vec<u32>,
    /// From there to the second.
    step: usize,
    /// Nothing where there is no second, beyond the picture's edge.
    shares: Vec<u32>,
    /// The first place, the step and the share, where they are the same all along the row and the step is
    /// one or two samples: what a JPEG that is decoded at a fitting scale comes to.
    even: Option<(usize, usize, u32)>,
}

impl Taps {
    fn find_even(&self) -> Option<(usize, usize, u32)> {
        let (&first, &share) = (self.places.first()?, self.shares.first()?);
        let step = self.places.get(1)?.checked_sub(first).filter(|step| (1..=2).contains(step))?;
        let steps = self.step == 1
            && self.places.iter().zip(0..).all(|(&at, count)| at == first + count * step)
            && self.shares.iter().all(|other| *other == share);
        steps.then_some((first as usize, step as usize, share))
    }
}

/// What the taps across were made for.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Key {
    channels: [Channel; 3],
    cut: [f64; 4],
    count: u32,
}

/// What takes the rows of a picture. No closure: of one that calls others, the compiler makes no part of a function
/// that is compiled for wider registers.
pub(super) trait Rows {
    /// Row `y`: red, green and blue, or three times the luminance.
    fn row(&mut self, y: usize, rows: [&[u8]; 3]);
}

impl Rows for &mut dyn FnMut(usize, [&[u8]; 3]) {
    #[inline(always)]
    fn row(&mut self, y: usize, rows: [&[u8]; 3]) {
        self(y, rows);
    }
}

/// Resizes and converts pictures; its memory is kept from picture to picture.
#[derive(Default)]
pub struct Sampler {
    across: [Taps; 3],
    made_for: Option<Key>,
    /// A row between two rows of each plane, in 256ths.
    between: [Vec<u16>; 3],
    rows: [Vec<u8>; 3],
}

impl Sampler {
    /// Brings the part `cut` (left, top, width, height as shares) of a picture to `size` and gives
    /// `each` every row with its number: red, green and blue, or three times the luminance. False when
    /// the picture has fewer bytes than its size needs.
    pub fn sample(
        &mut self,
        picture: &Planes<'_>,
        cut: [f64; 4],
        size: (u32, u32),
        want: Want,
        each: &mut dyn FnMut(usize, [&[u8]; 3]),
    ) -> bool {
        #[cfg(target_arch = "x86_64")]
        if wide() {
            // SAFETY: the processor has what the function was compiled for.
            return unsafe { self.sample_wide(picture, cut, size, want, each) };
        }
        self.sample_narrow(picture, cut, size, want, each)
    }

    /// For wider registers than every x86 has: it takes half the time.
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2")]
    #[unsafe(export_name = "hot_sample_wide")]
    fn sample_wide(
        &mut self,
        picture: &Planes<'_>,
        cut: [f64; 4],
        size: (u32, u32),
        want: Want,
        each: &mut dyn FnMut(usize, [&[u8]; 3]),
    ) -> bool {
        self.sample_rows(picture, cut, size, want, each)
    }

    #[unsafe(export_name = "hot_sample")]
    fn sample_narrow(
        &mut self,
        picture: &Planes<'_>,
        cut: [f64; 4],
        size: (u32, u32),
        want: Want,
        each: &mut dyn FnMut(usize, [&[u8]; 3]),
    ) -> bool {
        self.sample_rows(picture, cut, size, want, each)
    }

    /// [`Sampler::sample`] with `each` as a part of its loop, compiled for what the caller is.
    #[inline(always)]
    pub(super) fn sample_rows(
        &mut self,
        picture: &Planes<'_>,
        cut: [f64; 4],
        size: (u32, u32),
        want: Want,
        mut each: impl Rows,
    ) -> bool {
        if !picture.is_whole(want) {
            return false;
        }
        let used = picture.used(want);
        self.prepare(picture, cut, size.0);
        for y in 0..size.1 as usize {
            for (number, plane) in picture.planes.iter().enumerate() {
                let channels = || picture.channels[..used].iter().filter(|c| c.plane == number);
                let Some(step) = channels().map(|channel| channel.step).max() else { continue };
                let rows = plane.rows as f64;
                let tap = Tap::of(y, size.1, cut[1] * rows, cut[3] * rows, plane.rows);
                // Only what the taps across can reach, in whole steps.
                let ends =
                    picture.channels[..used].iter().zip(&self.across).filter(|(c, _)| c.plane == number);
                let (first, last) = ends.fold((usize::MAX, 0), |(first, last), (_, taps)| {
                    let start = taps.places.first().map_or(0, |&at| at as usize);
                    let end = taps.places.last().map_or(0, |&at| at as usize + taps.step);
                    (first.min(start), last.max(end))
                });
                let (first, last) = (first.saturating_sub(step), (last + step).min(plane.stride));
                let row = |at: u32| &plane.bytes[at as usize * plane.stride..][first..last];
                blend(row(tap.at), row(tap.next), tap.share, &mut self.between[number][first..last]);
            }
            for (at, channel) in picture.channels[..used].iter().enumerate() {
                across(&self.between[channel.plane], &self.across[at], &mut self.rows[at]);
            }
            let [first, second, third] = &mut self.rows;
            let grey = match (picture.colors, want) {
                (Colors::Grey, _) => true,
                (Colors::Rgb, Want::Rgb) => false,
                (Colors::Rgb, Want::Grey) => {
                    for ((r, g), b) in first.iter_mut().zip(&*second).zip(&*third) {
                        *r = luminance([*r, *g, *b]);
                    }
                    true
                }
                (Colors::Yuv(range), Want::Grey) => {
                    if range == Range::Limited {
                        first.iter_mut().for_each(|y| *y = full_range(*y));
                    }
                    true
                }
                (Colors::Yuv(range), Want::Rgb) => {
                    to_rgb(range, first, second, third);
                    false
                }
            };
            // In one place, so that it becomes a part of this loop.
            each.row(y, if grey { [first, first, first] } else { [first, second, third] });
        }
        true
    }

    fn prepare(&mut self, picture: &Planes<'_>, cut: [f64; 4], count: u32) {
        let key = Key { channels: picture.channels, cut, count };
        for (between, plane) in self.between.iter_mut().zip(&picture.planes) {
            // More, so that the last sample has a neighbour, whose share is nothing.
            between.resize(plane.stride + MOST_STEP, 0);
        }
        if self.made_for == Some(key) {
            return;
        }
        for (at, channel) in picture.channels.iter().enumerate() {
            self.rows[at].resize(count as usize, 0);
            let width = channel.width as f64;
            let (offset, step) = (channel.offset as u32, channel.step as u32);
            let taps = (0..count as usize).map(|x| {
                let tap = Tap::of(x, count, cut[0] * width, cut[2] * width, channel.width);
                (offset + tap.at * step, if tap.next > tap.at { tap.share } else { 0 })
            });
            self.across[at].step = channel.step;
            let Taps { places, shares, .. } = &mut self.across[at];
            places.clear();
            shares.clear();
            if channel.width > 0 {
                for (place, share) in taps {
                    places.push(place);
                    shares.push(share);
                }
            }
            self.across[at].even = self.across[at].find_even();
        }
        self.made_for = Some(key);
    }
}

/// Has this processor the wide registers that some functions are compiled for?
#[cfg(target_arch = "x86_64")]
pub(super) fn wide() -> bool {
    std::arch::is_x86_feature_detected!("avx2")
}

/// One row at its new width, from values in 256ths.
#[inline(always)]
fn across(between: &[u16], taps: &Taps, row: &mut [u8]) {
    match taps.even {
        Some((first, 1, share)) => {
            let (here, next) = (&between[first..], &between[first + 1..]);
            for ((to, a), b) in row.iter_mut().zip(here).zip(next) {
                *to = value(share, *a, *b);
            }
        }
        Some((first, _, share)) => {
            for (to, [a, b]) in row.iter_mut().zip(between[first..].as_chunks::<2>().0) {
                *to = value(share, *a, *b);
            }
        }
        // As many neighbours as steps, and one.
        None => match taps.step {
            1 => across_uneven::<2>(between, taps, row),
            2 => across_uneven::<3>(between, taps, row),
            3 => across_uneven::<4>(between, taps, row),
            _ => across_uneven::<{ MOST_STEP + 1 }>(between, taps, row),
        },
    }
}

/// The same at any places. `SPAN`: samples from the first to the second neighbour, both counted.
#[inline(always)]
fn across_uneven<const SPAN: usize>(between: &[u16], taps: &Taps, row: &mut [u8]) {
    let (places, last_places) = taps.places.as_chunks::<LANES>();
    let (shares, last_shares) = taps.shares.as_chunks::<LANES>();
    let (row, rest) = row.as_chunks_mut::<LANES>();
    for (at, row) in row.iter_mut().enumerate() {
        // The fetching is apart from the counting, which then is done for several at once.
        let (first, second) = pairs::<SPAN>(between, &places[at]);
        lanes(&shares[at], &first, &second, row);
    }
    for (at, to) in rest.iter_mut().enumerate() {
        let (a, b) = pair::<SPAN>(between, last_places[at]);
        *to = value(last_shares[at], a, b);
    }
}

#[inline(always)]
fn pairs<const SPAN: usize>(between: &[u16], places: &[u32; LANES]) -> ([u16; LANES], [u16; LANES]) {
    let (mut first, mut second) = ([0; LANES], [0; LANES]);
    let mut at = 0;
    while at < LANES {
        (first[at], second[at]) = pair::<SPAN>(between, places[at]);
        at += 1;
    }
    (first, second)
}

#[inline(always)]
fn lanes(shares: &[u32; LANES], first: &[u16; LANES], second: &[u16; LANES], row: &mut [u8; LANES]) {
    let mut at = 0;
    while at < LANES {
        row[at] = value(shares[at], first[at], second[at]);
        at += 1;
    }
}

/// The first and the last of `SPAN` samples.
#[inline(always)]
fn pair<const SPAN: usize>(between: &[u16], at: u32) -> (u16, u16) {
    // One look at the bounds for both.
    match between[at as usize..].first_chunk::<SPAN>() {
        Some(span) => (span[0], span[SPAN - 1]),
        None => (0, 0),
    }
}

/// The value `share` 256ths on the way from `a` to `b`, which are in 256ths.
#[inline(always)]
fn value(share: u32, a: u16, b: u16) -> u8 {
    let (a, b) = (i32::from(a), i32::from(b));
    (((a << 8) + (b - a) * share as i32 + (1 << 15)) >> 16) as u8
}

/// `to` = 256 × the value `share` 256ths on the way from `a` to `b`.
#[inline(always)]
fn blend(a: &[u8], b: &[u8], share: u32, to: &mut [u16]) {
    if share == 0 {
        for (to, a) in to.iter_mut().zip(a) {
            *to = u16::from(*a) << 8;
        }
        return;
    }
    let (rest, share) = ((256 - share) as u16, share as u16);
    for ((to, a), b) in to.iter_mut().zip(a).zip(b) {
        *to = u16::from(*a) * rest + u16::from(*b) * share;
    }
}

/// Luminance of ITU-R BT.601, as JPEG and OpenCV compute it.
fn luminance([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 32768) >> 16) as u8
}

/// 16 to 235 spread over 0 to 255.
fn full_range(y: u8) -> u8 {
    let y = (u32::from(y).saturating_sub(16) * 255 + 109) / 219;
    y.min(255) as u8
}

/// Luminance and colour differences of BT.601 to red, green and blue, in place.
#[inline(always)]
fn to_rgb(range: Range, y: &mut [u8], u: &mut [u8], v: &mut [u8]) {
    let (black, gain, spread) = match range {
        Range::Full => (0.0, 1.0, 1.0),
        Range::Limited => (16.0, 255.0 / 219.0, 255.0 / 224.0),
    };
    let (red_v, blue_u) = (1.402 * spread, 1.772 * spread);
    let (green_u, green_v) = (0.344_136 * spread, 0.714_136 * spread);
    // Adding 2²³ rounds to a whole number and leaves it in the lowest bits: unlike a cast, several at once.
    let byte = |value: f32| (value.clamp(0.0, 255.0) + 8_388_608.0).to_bits() as u8;
    for ((y, u), v) in y.iter_mut().zip(u).zip(v) {
        let (l, b, r) = ((f32::from(*y) - black) * gain, f32::from(*u) - 128.0, f32::from(*v) - 128.0);
        *y = byte(l + red_v * r);
        *u = byte(l - green_u * b - green_v * r);
        *v = byte(l + blue_u * b);
    }
}

#[cfg(test)]
#[path = "planes_tests.rs"]
mod tests;
