//! Streams that are cut into frames, pictures, and frames as they come out of shared memory.

use edgewarden::domain::frame::{FrameView, MAX_FRAME};
use edgewarden::domain::{FrameFormat, FrameMeta};
use edgewarden::inference::pixels::PixelDecoder;
use edgewarden::inference::planes::{Sampler, Want};
use edgewarden::inference::reduce::Reducer;
use edgewarden::inference::source::folder;
use edgewarden::inference::source::stream::jpeg::JpegCutter;
use edgewarden::inference::source::stream::y4m::Y4mCutter;
use edgewarden::inference::source::stream::{Found, Unreadable};
use edgewarden::process::frames;

type Cut = Vec<(Found, Vec<u8>)>;

/// JPEGs one after the other, with anything between them: the same ones however the stream is cut.
pub fn mjpeg(data: &[u8]) {
    let cut = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut cutter, mut found, mut into) = (JpegCutter::default(), Cut::new(), Vec::new());
        for mut piece in pieces {
            while !piece.is_empty() {
                let (used, picture) = cutter.push(piece);
                assert!(used > 0, "it stands still");
                piece = &piece[used..];
                match picture {
                    Ok(Some(picture)) => {
                        cutter.take(&mut into);
                        assert!(into.starts_with(&[0xff, 0xd8]) && into.ends_with(&[0xff, 0xd9]));
                        found.push((picture, into.clone()));
                    }
                    Ok(None) | Err(Unreadable::Frame(_)) => {}
                    Err(Unreadable::Stream(_)) => return found,
                }
            }
        }
        found
    };
    assert_eq!(cut(&mut super::pieces(data)), cut(&mut std::iter::once(data)));
}

/// A Y4M stream, of ffmpeg and of GStreamer.
pub fn y4m(data: &[u8]) {
    for new in [Y4mCutter::default, Y4mCutter::of_gstreamer] {
        let cut = |pieces: &mut dyn Iterator<Item = &[u8]>| {
            let (mut cutter, mut found, mut into) = (new(), Cut::new(), Vec::new());
            for mut piece in pieces {
                while !piece.is_empty() {
                    let (used, picture) = cutter.push(piece);
                    assert!(used > 0, "it stands still");
                    piece = &piece[used..];
                    match picture {
                        Ok(Some(picture)) => {
                            cutter.take(&mut into);
                            let length = picture.format.exact_len(picture.width, picture.height);
                            assert_eq!(length, Some(into.len()));
                            assert!(into.len() <= MAX_FRAME);
                            found.push((picture, into.clone()));
                        }
                        Ok(None) => {}
                        Err(_) => return found,
                    }
                }
            }
            found
        };
        assert_eq!(cut(&mut super::pieces(data)), cut(&mut std::iter::once(data)));
    }
}

/// A picture of a folder.
pub fn picture(data: &[u8]) {
    let mut bytes = data.to_vec();
    if let Ok(picture) = folder::parse(&mut bytes)
        && let Some(length) = picture.format.exact_len(picture.width, picture.height)
    {
        assert_eq!(bytes.len(), length);
        assert!(length <= MAX_FRAME);
    }
}

/// Longest edge of the frames here: larger ones only take longer.
const EDGE: u16 = 2048;

/// A frame as another process wrote it: its format, its stated size, and its bytes. It is decoded in each
/// of the ways that a model or the motion gate wants it.
pub fn frame(data: &[u8]) {
    let mut rest = data;
    let [format] = super::take::<1>(&mut rest);
    let (width, height) = (super::take::<4>(&mut rest), super::take::<4>(&mut rest));
    let meta = FrameMeta {
        seq: 1,
        captured_unix_ns: 0,
        captured_mono_ns: 0,
        width: u32::from_le_bytes(width),
        height: u32::from_le_bytes(height),
        format: FrameFormat::ALL[usize::from(format) % FrameFormat::ALL.len()],
    };
    if frames::check(&meta, rest.len()).is_err() {
        return;
    }
    if meta.format == FrameFormat::Jpeg && is_large(rest) {
        return;
    }
    let view = FrameView { meta, bytes: rest };
    if let Ok(Some(grey)) = Reducer::default().grey(view) {
        assert_eq!(grey.values.len(), grey.width * grey.height);
    }
    let Ok(mut decoder) = PixelDecoder::new() else { return };
    for grey in [false, true] {
        if let Ok(pixels) = decoder.decode(view, grey, |width, height| (width / 4, height / 4)) {
            assert_eq!(pixels.bytes.len(), pixels.width as usize * pixels.height as usize * pixels.channels);
        }
        let want = if grey { Want::Grey } else { Want::Rgb };
        if let Ok(planes) = decoder.planes(view, want, |_, _| (8, 8)) {
            let mut rows = 0;
            let whole =
                Sampler::default().sample(&planes, [0.1, 0.2, 0.7, 0.8], (9, 7), want, &mut |_, row| {
                    assert!(row.iter().all(|channel| channel.len() == 9));
                    rows += 1;
                });
            assert!(!whole || rows == 7);
        }
    }
}

/// True where anything in the bytes looks like the header of a larger picture.
fn is_large(jpeg: &[u8]) -> bool {
    let edge = |bytes: &[u8]| u16::from_be_bytes([bytes[0], bytes[1]]) > EDGE;
    jpeg.windows(9)
        .any(|at| at[0] == 0xff && (0xc0..=0xcf).contains(&at[1]) && (edge(&at[5..]) || edge(&at[7..])))
}
