//! Cuts a Y4M stream (YUV4MPEG2, as `ffmpeg -f yuv4mpegpipe` and GStreamer's `y4menc` write it) into
//! pictures.
//!
//! The `y4m` crate reads through `Read` and forgets where it was when the pipe has no more for now, so
//! it does not fit a reader that must never wait; the format is two lines of text.

use super::{Found, Unreadable};
use crate::domain::FrameFormat;
use crate::domain::frame::MAX_FRAME;

/// Longest line of the header or before a picture, bytes.
const MAX_LINE: usize = 4096;
/// Bytes before the header, for a program that greets first.
const MAX_GREETING: usize = 64 << 10;
const MAGIC: &[u8] = b"YUV4MPEG2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// The header's line; before it, other lines are passed over.
    Header,
    /// The line before a picture.
    Frame,
    /// A picture's bytes; so many are there.
    Picture { have: usize },
}

/// The cutter. It holds one unfinished picture at most.
#[derive(Debug)]
pub struct Y4mCutter {
    at: At,
    line: Vec<u8>,
    greeting: usize,
    found: Found,
    len: usize,
    /// As long as a picture once the header is known, however much of it is filled.
    picture: Vec<u8>,
    /// Widths must be a multiple of this.
    step: u32,
}

impl Default for Y4mCutter {
    fn default() -> Self {
        Self {
            at: At::Header,
            line: Vec::new(),
            greeting: 0,
            found: Found { width: 0, height: 0, format: FrameFormat::I420 },
            len: 0,
            picture: Vec::new(),
            step: 1,
        }
    }
}

impl Y4mCutter {
    /// For what GStreamer writes: other widths than multiples of 8 come with padded rows that their
    /// header does not tell of, and the pictures would be askew.
    pub fn of_gstreamer() -> Self {
        Self { step: 8, ..Self::default() }
    }

    /// Takes bytes up to the end of a picture: how many, and what it is when it is whole; it is then
    /// had from [`Y4mCutter::take`].
    ///
    /// # Errors
    /// After one there is no way back into the stream.
    pub fn push(&mut self, bytes: &[u8]) -> (usize, Result<Option<Found>, Unreadable>) {
        let mut used = 0;
        while used < bytes.len() {
            let rest = &bytes[used..];
            if let Some(room) = self.room() {
                let took = room.len().min(rest.len());
                room[..took].copy_from_slice(&rest[..took]);
                used += took;
                if let Some(found) = self.filled(took) {
                    return (used, Ok(Some(found)));
                }
                continue;
            }
            let end = memchr::memchr(b'\n', rest);
            let took = end.map_or(rest.len(), |end| end + 1);
            used += took;
            self.line.extend_from_slice(&rest[..end.unwrap_or(took)]);
            if self.line.len() > MAX_LINE && self.at != At::Header {
                return (used, Err(lost()));
            }
            let read = if end.is_some() { self.line() } else { self.greeting(0) };
            if let Err(detail) = read {
                return (used, Err(detail));
            }
        }
        (used, Ok(None))
    }

    /// Where the next bytes of a picture belong: a large one is read from the pipe straight to its
    /// place. `None` between pictures.
    pub fn room(&mut self) -> Option<&mut [u8]> {
        match self.at {
            At::Picture { have } => self.picture.get_mut(have..self.len),
            At::Header | At::Frame => None,
        }
    }

    /// So many bytes were written to [`Y4mCutter::room`].
    pub fn filled(&mut self, bytes: usize) -> Option<Found> {
        let At::Picture { have } = &mut self.at else { return None };
        *have += bytes;
        if *have < self.len {
            return None;
        }
        self.at = At::Frame;
        Some(self.found)
    }

    /// The whole picture; `spare` becomes the memory of the next one.
    pub fn take(&mut self, spare: &mut Vec<u8>) {
        std::mem::swap(&mut self.picture, spare);
        // Of the right length already when it comes back from the one before.
        self.picture.resize(self.len, 0);
    }

    /// Bytes of a picture that is not whole.
    pub fn unfinished(&self) -> usize {
        match self.at {
            At::Picture { have } => have.max(1),
            At::Header | At::Frame => self.line.len(),
        }
    }

    fn line(&mut self) -> Result<(), Unreadable> {
        let line = std::mem::take(&mut self.line);
        let read = self.read_line(&line);
        self.line = line;
        self.line.clear();
        read
    }

    fn read_line(&mut self, line: &[u8]) -> Result<(), Unreadable> {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        let mut words = line.split(|byte| *byte == b' ');
        match (words.next(), self.at) {
            // A second header: films one after the other.
            (Some(MAGIC), _) => self.header(words).map_err(Unreadable::Stream),
            (Some(b"FRAME"), At::Frame) => {
                self.at = At::Picture { have: 0 };
                self.picture.resize(self.len, 0);
                Ok(())
            }
            (_, At::Frame | At::Picture { .. }) => Err(lost()),
            (_, At::Header) => self.greeting(line.len() + 1),
        }
    }

    /// What comes before the header is passed over, as far as it is not too much.
    fn greeting(&mut self, bytes: usize) -> Result<(), Unreadable> {
        self.greeting += bytes;
        if self.at == At::Header && self.greeting + self.line.len() > MAX_GREETING {
            let detail = format!("{MAX_GREETING} bytes and no Y4M header; it must begin with YUV4MPEG2");
            return Err(Unreadable::Stream(detail));
        }
        Ok(())
    }

    fn header<'a>(&mut self, words: impl Iterator<Item = &'a [u8]>) -> Result<(), String> {
        let (mut width, mut height, mut colour) = (None, None, "420jpeg".to_owned());
        for word in words.filter(|word| !word.is_empty()) {
            let value = String::from_utf8_lossy(&word[1..]).into_owned();
            match word[0] {
                b'W' => width = value.parse().ok(),
                b'H' => height = value.parse().ok(),
                b'C' => colour = value,
                // Frame rate, interlacing, aspect and comments change nothing here.
                _ => {}
            }
        }
        let edge = |edge: Option<u32>| edge.filter(|edge| (1..=65_535).contains(edge));
        let (Some(width), Some(height)) = (edge(width), edge(height)) else {
            return Err("a Y4M header without a sensible size (W and H)".to_owned());
        };
        let format = match colour.as_str() {
            "420jpeg" | "420mpeg2" | "420paldv" | "420" => FrameFormat::I420,
            "mono" => FrameFormat::Grey8,
            other => {
                let other: String = other.chars().filter(char::is_ascii_graphic).take(20).collect();
                return Err(format!(
                    "Y4M of the kind C{other}, which is not read here; let the program write 4:2:0 (ffmpeg: \
                     -pix_fmt yuv420p; GStreamer: video/x-raw,format=I420)"
                ));
            }
        };
        if format == FrameFormat::I420 && (width % 2 == 1 || height % 2 == 1) {
            return Err(format!(
                "Y4M of {width}x{height}; 4:2:0 needs even sizes (ffmpeg: -vf crop=trunc(iw/2)*2:trunc(ih/2)*2)"
            ));
        }
        if width % self.step != 0 {
            return Err(format!(
                "Y4M of {width}x{height}, which GStreamer pads to rows of another length; scale it to a width in \
                 steps of {} (source.width and source.height), or use ffmpeg",
                self.step
            ));
        }
        let len = format.exact_len(width, height).unwrap_or(usize::MAX);
        if len > MAX_FRAME {
            return Err(format!(
                "Y4M of {width}x{height} is more than {MAX_FRAME} bytes a picture; scale it down"
            ));
        }
        self.found = Found { width, height, format };
        self.len = len;
        self.at = At::Frame;
        Ok(())
    }
}

fn lost() -> Unreadable {
    Unreadable::Stream("where a Y4M picture should begin (FRAME) is something else".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a stream given in pieces is cut into; up to the first fault.
    fn cut<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(Found, Vec<u8>)>, Option<String>) {
        let mut cutter = Y4mCutter::default();
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
                        cuts.push((found, into.clone()));
                    }
                    Err(Unreadable::Stream(fault) | Unreadable::Frame(fault)) => return (cuts, Some(fault)),
                }
            }
        }
        (cuts, None)
    }

    fn fault(text: &str) -> String {
        cut([text.as_bytes()]).1.expect("must be refused")
    }

    #[test]
    fn every_kind_that_is_read_is_cut_and_parameters_are_passed_over() {
        let header = "YUV4MPEG2 W4 H2 F30000:1001 Ip A1:1";
        for (colour, format, len) in [
            ("", FrameFormat::I420, 12),
            (" C420jpeg XYSCSS=420JPEG", FrameFormat::I420, 12),
            (" C420mpeg2", FrameFormat::I420, 12),
            (" C420paldv", FrameFormat::I420, 12),
            (" C420", FrameFormat::I420, 12),
            (" Cmono", FrameFormat::Grey8, 8),
        ] {
            // Picture bytes may hold line ends and the words themselves.
            let pictures = [b"FRAME\nYUV4MP\n"[..len].to_vec(), vec![b'\n'; len]];
            let stream = [
                format!("{header}{colour}\nFRAME\n").as_bytes(),
                &pictures[0],
                b"FRAME Ip XFOO=1\n",
                &pictures[1],
            ]
            .concat();
            let found = Found { width: 4, height: 2, format };
            let expected = pictures.map(|picture| (found, picture)).to_vec();
            assert_eq!(cut([stream.as_slice()]), (expected.clone(), None), "{colour}");
            assert_eq!(cut(stream.chunks(1)), (expected, None), "{colour}");
        }
    }

    #[test]
    fn a_greeting_and_a_second_film_are_understood() {
        let stream =
            b"hello\nsetting up\nYUV4MPEG2 W2 H1 Cmono\nFRAME\nabYUV4MPEG2 W1 H3 Cmono\nFRAME\ncdeFRAME\nfgh";
        let found = |width, height| Found { width, height, format: FrameFormat::Grey8 };
        let pictures = vec![
            (found(2, 1), b"ab".to_vec()),
            (found(1, 3), b"cde".to_vec()),
            (found(1, 3), b"fgh".to_vec()),
        ];
        assert_eq!(cut([stream.as_slice()]), (pictures, None));
    }

    #[test]
    fn what_is_not_read_is_refused_with_the_remedy() {
        for colour in ["422", "444", "420p10", "444alpha", "411"] {
            let fault = fault(&format!("YUV4MPEG2 W4 H4 C{colour}\n"));
            assert!(fault.contains(colour) && fault.contains("-pix_fmt yuv420p"), "{fault}");
        }
        for size in ["W5 H4", "W4 H5"] {
            assert!(fault(&format!("YUV4MPEG2 {size}\n")).contains("even sizes"));
        }
        for size in ["", "W4", "W0 H4", "W-2 H4", "W4 Hx", "W99999999999 H2", "W70000 H2"] {
            assert!(fault(&format!("YUV4MPEG2 {size}\n")).contains("sensible size"), "{size}");
        }
        assert!(fault("YUV4MPEG2 W60000 H60000\n").contains("scale it down"));
        assert!(fault("YUV4MPEG2 W2 H2\nFRAMES\n").contains("should begin"));
        assert!(fault(&format!("YUV4MPEG2 W2 H2\n{}", "x".repeat(MAX_LINE + 1))).contains("should begin"));
        let mut padded = Y4mCutter::of_gstreamer();
        let (_, Err(Unreadable::Stream(told))) = padded.push(b"YUV4MPEG2 W322 H242\n") else { panic!() };
        assert!(told.contains("steps of 8"), "{told}");
        for endless in ["x", "words\n"] {
            assert!(fault(&endless.repeat(MAX_GREETING + 1)).contains("must begin with YUV4MPEG2"));
        }
    }

    proptest! {
        #[test]
        fn the_cuts_do_not_depend_on_the_pieces(splits in prop::collection::vec(1usize..60, 1..40), pixels in prop::collection::vec(any::<u8>(), 24 * 5)) {
            let mut stream = b"YUV4MPEG2 W4 H4 F25:1\n".to_vec();
            for picture in pixels.chunks(24) {
                stream.extend(b"FRAME\n");
                stream.extend(picture);
            }
            let mut pieces = Vec::new();
            let (mut rest, mut turn) = (stream.as_slice(), splits.iter().cycle());
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(rest.len().min(*turn.next().unwrap()));
                pieces.push(piece);
                rest = after;
            }
            let (cuts, fault) = cut(pieces);
            prop_assert_eq!(fault, None);
            prop_assert_eq!(cuts.len(), 5);
            prop_assert_eq!(cuts.into_iter().flat_map(|(_, bytes)| bytes).collect::<Vec<_>>(), pixels);
        }

        #[test]
        fn no_bytes_make_it_panic(text in "(YUV4MPEG2 |W[0-9]{1,3} |H4 |C(mono|420|444) |FRAME|\n|[ -~]{0,9}){0,30}") {
            cut([text.as_bytes()]);
        }
    }
}
