//! Cuts a stream of JPEGs, one after the other, into pictures (ITU T.81, annex B).
//!
//! Markers are followed by their stated lengths, so a thumbnail inside a picture's EXIF, which has a
//! beginning and an end of its own, does not cut the picture. What stands between pictures (the heads
//! of a multipart stream, padding, a program's words) is passed over. Nothing is decoded here.

use super::{Found, Unreadable};
use crate::domain::FrameFormat;
use crate::domain::frame::MAX_FRAME;

/// Bytes without a whole picture after which this is no stream of JPEGs.
pub const MAX_GARBAGE: usize = 4 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Between pictures; true after an FF that may begin one.
    Outside { ff: bool },
    /// A marker's FF is due.
    Marker,
    /// A marker's second byte is due; any number of FF may stand before it.
    Code,
    /// A segment's length is due; the high byte, where it has come.
    Length { code: u8, high: Option<u8> },
    /// Inside a segment that began at `start` of the picture, with so many bytes to go.
    Segment { code: u8, start: usize, left: usize },
    /// Compressed data; true after an FF.
    Data { ff: bool },
}

/// The cutter. It holds one unfinished picture at most.
#[derive(Debug)]
pub struct JpegCutter {
    at: At,
    picture: Vec<u8>,
    size: Option<(u32, u32)>,
    garbage: usize,
}

impl Default for JpegCutter {
    fn default() -> Self {
        Self { at: At::Outside { ff: false }, picture: Vec::new(), size: None, garbage: 0 }
    }
}

impl JpegCutter {
    /// Takes bytes up to the end of a picture: how many, and the picture's size when it is whole; it
    /// is then had from [`JpegCutter::take`].
    ///
    /// # Errors
    /// A picture that is too large is told and passed over; no picture for too long is the end.
    pub fn push(&mut self, bytes: &[u8]) -> (usize, Result<Option<Found>, Unreadable>) {
        let mut used = 0;
        while used < bytes.len() {
            let (took, whole) = self.step(&bytes[used..]);
            used += took;
            if self.picture.len() > MAX_FRAME {
                self.drop_picture();
                self.garbage = 0;
                let detail = format!("a JPEG of more than {MAX_FRAME} bytes; make the picture smaller");
                return (used, Err(Unreadable::Frame(detail)));
            }
            if self.garbage > MAX_GARBAGE {
                let detail =
                    format!("{MAX_GARBAGE} bytes without a JPEG; it must write JPEGs one after the other");
                return (used, Err(Unreadable::Stream(detail)));
            }
            if whole {
                self.at = At::Outside { ff: false };
                match self.size {
                    Some((width, height)) => {
                        self.garbage = 0;
                        return (used, Ok(Some(Found { width, height, format: FrameFormat::Jpeg })));
                    }
                    // An end without a size is no picture.
                    None => self.drop_picture(),
                }
            }
        }
        (used, Ok(None))
    }

    /// The whole picture; `spare` becomes the memory of the next one.
    pub fn take(&mut self, spare: &mut Vec<u8>) {
        std::mem::swap(&mut self.picture, spare);
        self.picture.clear();
    }

    /// Bytes of a picture that is not whole.
    pub fn unfinished(&self) -> usize {
        if self.at == (At::Outside { ff: false }) { 0 } else { self.picture.len() }
    }

    fn begin(&mut self) {
        self.drop_picture();
        self.picture.extend_from_slice(&[0xff, 0xd8]);
        self.size = None;
        self.at = At::Marker;
    }

    fn drop_picture(&mut self) {
        // One large picture that was torn is no reason to give up, a few in a row are.
        self.garbage += self.picture.len().min(MAX_GARBAGE / 4);
        self.picture.clear();
        self.at = At::Outside { ff: false };
    }

    /// Takes at least one byte; true at the end of a picture.
    fn step(&mut self, bytes: &[u8]) -> (usize, bool) {
        let byte = bytes[0];
        match self.at {
            At::Outside { ff: true } if byte == 0xd8 => self.begin(),
            At::Outside { ff: true } if byte == 0xff => {}
            At::Outside { .. } => {
                let until = memchr::memchr(0xff, bytes);
                self.at = At::Outside { ff: until.is_some() };
                let took = until.map_or(bytes.len(), |ff| ff + 1);
                self.garbage += took;
                return (took, false);
            }
            At::Marker => {
                if byte != 0xff {
                    self.drop_picture();
                    return (1, false);
                }
                self.picture.push(byte);
                self.at = At::Code;
            }
            At::Code => return (1, self.code(byte)),
            At::Length { code, high: None } => {
                self.picture.push(byte);
                self.at = At::Length { code, high: Some(byte) };
            }
            At::Length { code, high: Some(high) } => {
                self.picture.push(byte);
                match usize::from(u16::from_be_bytes([high, byte])).checked_sub(2) {
                    None => self.drop_picture(),
                    Some(left) => self.segment(code, self.picture.len(), left),
                }
            }
            At::Segment { code, start, left } => {
                let took = left.min(bytes.len());
                self.picture.extend_from_slice(&bytes[..took]);
                self.segment(code, start, left - took);
                return (took, false);
            }
            At::Data { ff: true } => match byte {
                // A stuffed byte, or a restart mark: the data goes on.
                0x00 | 0xd0..=0xd7 => {
                    self.picture.push(byte);
                    self.at = At::Data { ff: false };
                }
                0xff => self.picture.push(byte),
                marker => return (1, self.code(marker)),
            },
            At::Data { ff: false } => {
                let until = memchr::memchr(0xff, bytes);
                let took = until.map_or(bytes.len(), |ff| ff + 1);
                self.picture.extend_from_slice(&bytes[..took]);
                self.at = At::Data { ff: until.is_some() };
                return (took, false);
            }
        }
        (1, false)
    }

    /// A marker's second byte; true at the end of the picture.
    fn code(&mut self, code: u8) -> bool {
        // The picture before was torn off.
        if code == 0xd8 {
            self.begin();
            return false;
        }
        self.picture.push(code);
        match code {
            0xd9 => return true,
            0xff => {}
            0x01 | 0xd0..=0xd7 => self.at = At::Marker,
            0x00 => self.drop_picture(),
            code => self.at = At::Length { code, high: None },
        }
        false
    }

    /// Goes on in a segment, or past its end.
    fn segment(&mut self, code: u8, start: usize, left: usize) {
        if left > 0 {
            self.at = At::Segment { code, start, left };
            return;
        }
        // A frame header: sample precision, lines, samples per line.
        if matches!(code, 0xc0..=0xcf) && !matches!(code, 0xc4 | 0xc8 | 0xcc) {
            let edge =
                |at: usize| self.picture.get(at..at + 2).map(|b| u32::from(u16::from_be_bytes([b[0], b[1]])));
            self.size = match (edge(start + 3), edge(start + 1)) {
                (Some(width), Some(height)) if width > 0 && height > 0 => Some((width, height)),
                _ => None,
            };
        }
        self.at = if code == 0xda { At::Data { ff: false } } else { At::Marker };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn jpeg(width: usize, height: usize, grey: u8) -> Vec<u8> {
        let pixels: Vec<u8> = (0..width * height).map(|i| grey.wrapping_add((i * 7 % 97) as u8)).collect();
        let image = turbojpeg::Image {
            pixels: pixels.as_slice(),
            width,
            pitch: width,
            height,
            format: turbojpeg::PixelFormat::GRAY,
        };
        turbojpeg::compress(image, 95, turbojpeg::Subsamp::Gray).unwrap().to_vec()
    }

    /// The picture with a whole other JPEG, beginning and end, in its EXIF.
    fn with_thumbnail(outer: &[u8], inner: &[u8]) -> Vec<u8> {
        let mut made = outer[..2].to_vec();
        made.extend([0xff, 0xe1]);
        made.extend(u16::try_from(inner.len() + 2).unwrap().to_be_bytes());
        made.extend(inner);
        made.extend(&outer[2..]);
        made
    }

    /// Width, height, bytes; or why not.
    type Cut = Result<(u32, u32, Vec<u8>), Unreadable>;

    /// What a stream given in pieces is cut into.
    fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Cut> {
        let mut cutter = JpegCutter::default();
        let (mut cuts, mut into) = (Vec::new(), Vec::new());
        for mut piece in pieces {
            while !piece.is_empty() {
                let (used, found) = cutter.push(piece);
                assert!(used > 0, "it goes on");
                piece = &piece[used..];
                match found {
                    Ok(None) => {}
                    Ok(Some(found)) => {
                        cutter.take(&mut into);
                        cuts.push(Ok((found.width, found.height, into.clone())));
                    }
                    Err(fault) => {
                        let end = matches!(fault, Unreadable::Stream(_));
                        cuts.push(Err(fault));
                        if end {
                            return cuts;
                        }
                    }
                }
            }
        }
        cuts
    }

    #[test]
    fn pictures_are_cut_whatever_stands_between_and_inside_them() {
        let (one, two) = (jpeg(40, 24, 3), jpeg(17, 33, 90));
        let nested = with_thumbnail(&two, &one);
        let stream = [
            b"--boundary\r\nContent-Type: image/jpeg\r\n\r\n".as_slice(),
            &one,
            b"\r\n\xff--boundary\r\n\r\n",
            &nested,
            &[0; 100],
            &two,
            // Any number of FF may stand before a marker.
            &two[..2],
            &[0xff, 0xff],
            &two[2..],
        ]
        .concat();
        let mut padded = two[..2].to_vec();
        padded.extend([0xff, 0xff]);
        padded.extend(&two[2..]);
        let expected =
            [Ok((40, 24, one)), Ok((17, 33, nested)), Ok((17, 33, two.clone())), Ok((17, 33, padded))];
        assert_eq!(cut([stream.as_slice()]), expected);
        assert_eq!(cut(stream.chunks(1)), expected);
    }

    #[test]
    fn restart_marks_and_several_scans_belong_to_the_picture() {
        // By hand: a size, two scans with a table between them, stuffed bytes, restart marks.
        let picture = [
            b"\xff\xd8\xff\xc2\x00\x0b\x08\x00\x10\x00\x20\x01\x01\x11\x00".as_slice(),
            b"\xff\xda\x00\x03\x00abc\xff\x00def\xff\xd0ghi\xff\xd7\xff\x00",
            b"\xff\xc4\x00\x04\xff\xd9\xff\xda\x00\x03\x00more\xff\xff\xd9",
        ]
        .concat();
        assert_eq!(cut([picture.as_slice()]), [Ok((32, 16, picture.clone()))]);
    }

    #[test]
    fn a_torn_picture_is_dropped_and_the_next_one_is_whole() {
        let (one, two) = (jpeg(40, 24, 3), jpeg(16, 16, 90));
        for end in 1..one.len() - 1 {
            // Torn inside a segment, its length takes what comes next with it: 64 KiB at most.
            let stream = [&one[..end], &two.repeat((64 << 10) / two.len() + 2)].concat();
            let whole = cut([stream.as_slice()]);
            assert_eq!(whole.last(), Some(&Ok((16, 16, two.clone()))), "torn after {end} bytes");
        }
    }

    #[test]
    fn what_never_becomes_a_picture_is_bounded() {
        let endless = vec![b'x'; MAX_GARBAGE + 10];
        let [Err(Unreadable::Stream(told))] = &cut([endless.as_slice()])[..] else { panic!() };
        assert!(told.contains("without a JPEG"), "{told}");
        // Beginnings without an end, and ends without a size.
        for torn in [b"\xff\xd8\xff\xda\x00\x02abcd".as_slice(), b"\xff\xd8\xff\xd9", b"\xff\xd8\xff\x00"] {
            let stream = torn.repeat(MAX_GARBAGE * 2 / torn.len());
            assert!(matches!(cut([stream.as_slice()])[..], [Err(Unreadable::Stream(_))]), "{torn:?}");
        }
        // One that never ends is told once and passed over; its memory is bounded.
        let good = jpeg(16, 16, 1);
        let scan = b"\xff\xd8\xff\xc0\x00\x0b\x08\x00\x10\x00\x20\x01\x01\x11\x00\xff\xda\x00\x03\x00";
        let huge = vec![1; MAX_FRAME + 10];
        let cuts = cut([scan.as_slice(), &huge, &good]);
        let [Err(Unreadable::Frame(told)), Ok((16, 16, after))] = &cuts[..] else { panic!("{}", cuts.len()) };
        assert!(told.contains("make the picture smaller") && *after == good);
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_depend_on_the_pieces(splits in prop::collection::vec(1usize..400, 1..40), noise in prop::collection::vec(any::<u8>(), 0..60)) {
            let noise: Vec<u8> = noise.into_iter().filter(|byte| *byte != 0xd8).collect();
            let one = with_thumbnail(&jpeg(24, 40, 7), &jpeg(8, 8, 1));
            let two = jpeg(9, 5, 200);
            let stream = [noise.as_slice(), &one, &noise, &two].concat();
            let mut pieces = Vec::new();
            let (mut rest, mut turn) = (stream.as_slice(), splits.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*turn.next().unwrap()));
                pieces.push(piece);
                rest = after;
            }
            prop_assert_eq!(cut(pieces), vec![Ok((24, 40, one)), Ok((9, 5, two))]);
        }

        #[test]
        fn no_bytes_make_it_panic_or_grow(pieces in prop::collection::vec(prop::collection::vec(prop_oneof![Just(0xffu8), Just(0xd8), Just(0xd9), Just(0xda), Just(0xc0), Just(0), any::<u8>()], 0..200), 0..20)) {
            let given: usize = pieces.iter().map(Vec::len).sum();
            let held: usize = cut(pieces.iter().map(Vec::as_slice)).into_iter().flatten().map(|(_, _, bytes)| bytes.len()).sum();
            prop_assert!(held <= given);
        }
    }
}
