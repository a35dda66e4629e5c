//! The pictures of a folder in the order of their names, as if a camera had taken them.
//!
//! JPEGs are passed on as they are; PNG, BMP, WebP and PNM are decoded to RGB. What a file is, its
//! content tells, not its name; the name only tells that it means to be a picture. The folder is read
//! anew at each round, so files may be added and removed while it runs.

use super::{Next, Picture, Source, Trouble};
use crate::domain::frame::MAX_FRAME;
use crate::domain::{FrameFormat, Reason, ReasonCode};
use image::{ImageReader, Limits};
use std::collections::{HashSet, VecDeque};
use std::fs::File;
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Names that mean to be pictures end so.
const ENDINGS: [&str; 8] = ["jpg", "jpeg", "png", "bmp", "webp", "pnm", "ppm", "pgm"];
/// More pictures are not looked at, so that a wrong folder cannot take all memory.
const MAX_FILES: usize = 100_000;

/// A folder, read once or for ever.
pub struct Folder {
    path: PathBuf,
    repeat: bool,
    left: VecDeque<PathBuf>,
    found: usize,
    /// True when a picture of this round was good.
    good: bool,
    /// Files whose fault was told; it is not told again at every round.
    told: HashSet<PathBuf>,
}

impl Folder {
    /// Opens it; at the end it begins again when `repeat` is set.
    ///
    /// # Errors
    /// `BadRequest` when it cannot be read or has no pictures.
    pub fn open(path: &Path, repeat: bool) -> Result<Self, Reason> {
        let left = list(path)?;
        let found = left.len();
        Ok(Self { path: path.to_owned(), repeat, left, found, good: false, told: HashSet::new() })
    }
}

impl Source for Folder {
    fn describe(&self) -> String {
        let order = if self.repeat { "again and again" } else { "once" };
        format!("folder {}, {} pictures, {order}", self.path.display(), self.found)
    }

    fn next(&mut self, _seq: u64, into: &mut Vec<u8>, _wait: Duration) -> Result<Next, Trouble> {
        loop {
            let Some(file) = self.left.pop_front() else {
                if !self.repeat {
                    return Ok(Next::Ended);
                }
                let any = std::mem::replace(&mut self.good, false);
                self.left = list(&self.path).map_err(Trouble::Frame)?;
                self.found = self.left.len();
                if !any {
                    let detail = format!(
                        "folder {}: none of its {} pictures can be read; put good ones there",
                        self.path.display(),
                        self.found
                    );
                    return Err(Trouble::Frame(Reason::new(ReasonCode::BadRequest, detail)));
                }
                continue;
            };
            match read(&file, into) {
                Ok(picture) => {
                    self.good = true;
                    self.told.remove(&file);
                    return Ok(Next::Picture(picture));
                }
                Err(fault) if self.told.len() < MAX_FILES && self.told.insert(file.clone()) => {
                    let detail = format!("picture {}: {fault}", file.display());
                    return Err(Trouble::Frame(Reason::new(ReasonCode::BadRequest, detail)));
                }
                Err(_) => {}
            }
        }
    }
}

/// The pictures by name.
fn list(path: &Path) -> Result<VecDeque<PathBuf>, Reason> {
    let wrong = |detail: String| {
        Reason::new(ReasonCode::BadRequest, format!("source folder {}: {detail}", path.display()))
    };
    let entries =
        std::fs::read_dir(path).map_err(|e| wrong(format!("{e}; make it, or correct source.path")))?;
    let mut files = Vec::new();
    for entry in entries {
        let file = entry.map_err(|e| wrong(e.to_string()))?.path();
        let ending = file.extension().map(|ending| ending.to_string_lossy().to_ascii_lowercase());
        if ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str())) {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(wrong(format!("more than {MAX_FILES} pictures; split it")));
        }
    }
    if files.is_empty() {
        return Err(wrong(format!("no pictures in it ({}); put some there", ENDINGS.join(", "))));
    }
    files.sort();
    Ok(files.into())
}

/// Reads one picture into `into`; the error says what is wrong with it, without its name.
fn read(file: &Path, into: &mut Vec<u8>) -> Result<Picture, String> {
    into.clear();
    let opened = File::open(file).map_err(|e| format!("{e}; correct its permissions or remove it"))?;
    let limit = MAX_FRAME as u64 + 1;
    opened.take(limit).read_to_end(into).map_err(|e| format!("{e}; replace it"))?;
    if into.len() as u64 == limit {
        return Err(format!("more than {MAX_FRAME} bytes; make it smaller"));
    }
    parse(into)
}

/// Looks at a file's bytes, and decodes those that are no JPEG in place.
///
/// # Errors
/// What is wrong with them, and the remedy.
pub fn parse(into: &mut Vec<u8>) -> Result<Picture, String> {
    if into.is_empty() {
        return Err("the file is empty; replace it".to_owned());
    }
    let no_picture = |e: &dyn std::fmt::Display| format!("not a picture that can be read ({e}); replace it");
    if into.starts_with(&[0xff, 0xd8]) {
        let header = turbojpeg::read_header(into).map_err(|e| no_picture(&e))?;
        let (Ok(width), Ok(height)) = (u32::try_from(header.width), u32::try_from(header.height)) else {
            return Err(no_picture(&"absurd size"));
        };
        return Ok(Picture::now(width, height, FrameFormat::Jpeg));
    }
    let reader = || -> Result<_, String> {
        let mut reader = ImageReader::new(Cursor::new(into.as_slice()))
            .with_guessed_format()
            .map_err(|e| no_picture(&e))?;
        let mut limits = Limits::default();
        // Sixteen bits with alpha take eight bytes a pixel where we keep three.
        limits.max_alloc = Some(MAX_FRAME as u64 * 4);
        reader.limits(limits);
        Ok(reader)
    };
    let (width, height) = reader()?.into_dimensions().map_err(|e| no_picture(&e))?;
    if width as u64 * height as u64 * 3 > MAX_FRAME as u64 {
        return Err(format!(
            "{width}×{height} is more than {MAX_FRAME} bytes of RGB; make it smaller or a JPEG"
        ));
    }
    let pixels = reader()?.decode().map_err(|e| no_picture(&e))?.into_rgb8();
    *into = pixels.into_raw();
    Ok(Picture::now(width, height, FrameFormat::Rgb8))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn jpeg(grey: u8) -> Vec<u8> {
        let pixels = vec![grey; 24 * 16 * 3];
        let image = turbojpeg::Image {
            pixels: pixels.as_slice(),
            width: 24,
            pitch: 24 * 3,
            height: 16,
            format: turbojpeg::PixelFormat::RGB,
        };
        turbojpeg::compress(image, 90, turbojpeg::Subsamp::Sub2x2).unwrap().to_vec()
    }

    /// The next `calls` answers: a picture by its bytes, a fault by its text.
    fn answers(folder: &mut Folder, calls: usize) -> Vec<Result<Option<Vec<u8>>, String>> {
        (0..calls)
            .map(|seq| {
                let mut into = vec![1, 2, 3];
                match folder.next(seq as u64, &mut into, Duration::ZERO) {
                    Ok(Next::Picture(_)) => Ok(Some(into)),
                    Ok(Next::Ended) => Ok(None),
                    Ok(Next::Pending) => panic!("a folder is never pending"),
                    Err(Trouble::Frame(reason) | Trouble::Lost(reason)) => Err(reason.detail),
                }
            })
            .collect()
    }

    #[test]
    fn pictures_come_by_name_and_end_or_begin_again() {
        let dir = tempfile::tempdir().unwrap();
        let (one, two) = (jpeg(10), jpeg(200));
        fs::write(dir.path().join("b.JPG"), &two).unwrap();
        fs::write(dir.path().join("a.jpeg"), &one).unwrap();
        fs::write(dir.path().join("notes.txt"), b"not a picture and not meant as one").unwrap();
        let mut once = Folder::open(dir.path(), false).unwrap();
        assert!(once.describe().ends_with("2 pictures, once"), "{}", once.describe());
        let (one, two) = (Ok(Some(one)), Ok(Some(two)));
        assert_eq!(answers(&mut once, 4), [one.clone(), two.clone(), Ok(None), Ok(None)]);
        let mut always = Folder::open(dir.path(), true).unwrap();
        assert_eq!(answers(&mut always, 5), [one.clone(), two.clone(), one.clone(), two, one]);
    }

    #[test]
    fn sizes_and_formats_are_told() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("a.png"), jpeg(1)).unwrap();
        image::RgbImage::from_pixel(5, 3, image::Rgb([9, 8, 7])).save(dir.path().join("b.png")).unwrap();
        image::GrayImage::from_pixel(2, 2, image::Luma([77])).save(dir.path().join("c.bmp")).unwrap();
        let mut folder = Folder::open(dir.path(), false).unwrap();
        let mut into = Vec::new();
        let picture = |width, height, format| Ok(Next::Picture(Picture::now(width, height, format)));
        assert_eq!(
            folder.next(1, &mut into, Duration::ZERO),
            picture(24, 16, FrameFormat::Jpeg),
            "content before name"
        );
        assert_eq!(folder.next(2, &mut into, Duration::ZERO), picture(5, 3, FrameFormat::Rgb8));
        assert_eq!(into, [9, 8, 7].repeat(15));
        assert_eq!(folder.next(3, &mut into, Duration::ZERO), picture(2, 2, FrameFormat::Rgb8));
        assert_eq!(into, [77; 12]);
    }

    #[test]
    fn each_bad_file_is_named_once_and_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let good = jpeg(5);
        fs::write(dir.path().join("a.jpg"), b"\xff\xd8 no jpeg").unwrap();
        fs::write(dir.path().join("b.png"), b"no png").unwrap();
        fs::write(dir.path().join("c.jpg"), b"").unwrap();
        fs::create_dir(dir.path().join("d.jpg")).unwrap();
        fs::write(dir.path().join("e.jpg"), vec![0; MAX_FRAME + 1]).unwrap();
        fs::write(dir.path().join("f.jpg"), &good).unwrap();
        let mut folder = Folder::open(dir.path(), true).unwrap();
        let answers = answers(&mut folder, 9);
        for (answer, name) in answers.iter().zip(["a.jpg", "b.png", "c.jpg", "d.jpg", "e.jpg"]) {
            let fault = answer.as_ref().unwrap_err();
            assert!(fault.contains(name), "{fault}");
        }
        assert!(answers[5..].iter().all(|answer| *answer == Ok(Some(good.clone()))));
    }

    #[test]
    fn a_folder_without_good_pictures_is_an_error_and_no_endless_loop() {
        let dir = tempfile::tempdir().unwrap();
        let missing = Folder::open(&dir.path().join("x"), true).err().unwrap();
        assert!(missing.detail.contains("make it, or correct source.path"), "{missing}");
        let empty = Folder::open(dir.path(), true).err().unwrap();
        assert!(empty.detail.contains("no pictures in it"), "{empty}");
        fs::write(dir.path().join("a.jpg"), b"x").unwrap();
        let mut folder = Folder::open(dir.path(), true).unwrap();
        let answers = answers(&mut folder, 3);
        assert!(answers[0].as_ref().unwrap_err().contains("a.jpg"));
        assert!(answers[1].as_ref().unwrap_err().contains("none of its 1 pictures"));
        assert!(answers[2].as_ref().unwrap_err().contains("none of its 1 pictures"));
        fs::remove_file(dir.path().join("a.jpg")).unwrap();
        let Err(Trouble::Frame(gone)) = folder.next(1, &mut Vec::new(), Duration::ZERO) else { panic!() };
        assert!(gone.detail.contains("no pictures"));
    }
}
