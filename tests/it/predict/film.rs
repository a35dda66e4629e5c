//! `predict` on video files.

use super::{edgewarden, edit, lines, run};
use crate::support::HANG;
use crate::support::stream::{film, grey_of, installed, running};
use crate::support::wait_until;
use rustix::process::Signal;
use serde_json::Value;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::Stdio;

/// A bundle that gives the means of the three colours.
fn means(folder: &Path) -> PathBuf {
    let bundle = folder.join("means");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/mean_f32.onnx");
    run(edgewarden().args(["bundle", "init", model]).arg(&bundle));
    edit(&bundle, |manifest| manifest["decode"]["activation"] = "none".into());
    bundle
}

/// The numbers of the frames; each answer is that of its own frame.
fn numbers(answers: &[Value], frame_of: impl Fn(u64) -> u64) -> Vec<u64> {
    let number = |answer: &Value| {
        let number = answer["frame"].as_u64().unwrap();
        let grey = f64::from(grey_of(frame_of(number) as u32 - 1)) - 16.0;
        let found = answer["classes"][0]["score"].as_f64().unwrap();
        assert!((found - grey / 219.0).abs() < 0.02, "frame {number}: {found}, {grey}");
        number
    };
    answers.iter().map(number).collect()
}

#[test]
fn a_film_is_answered_frame_by_frame_in_order_by_several_engines() {
    if !installed(&["ffmpeg", "ffprobe"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let bundle = means(temp.path());
    let clip = film(temp.path(), (320, 240), 60);
    let picture = temp.path().join("picture.png");
    image::RgbImage::from_pixel(20, 10, image::Rgb([255, 0, 0])).save(&picture).unwrap();
    let (drawn, csv) = (temp.path().join("drawn"), temp.path().join("answers.csv"));

    let mut command = edgewarden();
    command.arg("predict").arg(&bundle).args([&picture, &clip, &picture]).args(["--jobs", "3", "--draw"]);
    let answers = lines(&run(command.arg(&drawn).arg("--csv").arg(&csv)));
    assert_eq!(answers.len(), 62);
    assert!(answers[0]["frame"].is_null() && answers[61]["frame"].is_null());
    assert!(answers[61]["image"].as_str().unwrap().ends_with("picture.png"));
    assert_eq!(numbers(&answers[1..61], |number| number), (1..=60).collect::<Vec<_>>());
    assert_eq!(answers[26]["time_s"], 1.0, "25 frames a second");
    let table = std::fs::read_to_string(&csv).unwrap();
    assert!(table.lines().nth(1 + 3 + 25 * 3).unwrap().ends_with(",26,1.000"), "{table}");
    let folder = drawn.join(clip.file_stem().unwrap());
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 60);
    let last = std::fs::read(folder.join("000060.jpg")).unwrap();
    let header = turbojpeg::read_header(&last).unwrap();
    assert_eq!((header.width, header.height), (320, 240));

    let thinned = |arguments: [&str; 2]| {
        lines(&run(edgewarden().arg("predict").arg(&bundle).arg(&clip).args(arguments)))
    };
    assert_eq!(numbers(&thinned(["--every", "7"]), |number| number), [1, 8, 15, 22, 29, 36, 43, 50, 57]);
    let fifth = thinned(["--fps", "5"]);
    assert_eq!(fifth.len(), 12);
    assert_eq!(fifth[5]["time_s"], 1.0);
}

#[test]
fn what_keeps_a_film_from_being_read_is_told_in_one_line() {
    let temp = tempfile::tempdir().unwrap();
    let bundle = means(temp.path());
    let broken = temp.path().join("broken.mp4");
    std::fs::write(&broken, "no film").unwrap();
    let told = |path: &Path, search: Option<&str>| {
        let mut command = edgewarden();
        command.arg("predict").arg(&bundle).arg(path);
        if let Some(search) = search {
            command.env("PATH", search);
        }
        let output = command.output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), told.lines().count()), (Some(1), 1), "{told}");
        told
    };
    let nothing = told(&broken, Some("/nonexistent"));
    assert!(nothing.contains("broken.mp4") && nothing.contains("apt install ffmpeg"), "{nothing}");
    if installed(&["ffmpeg"]) {
        let broken = told(&broken, None);
        assert!(broken.contains("broken.mp4") && broken.contains("ffmpeg ended with status"), "{broken}");
        let missing = told(&temp.path().join("missing.mkv"), None);
        assert!(missing.contains("missing.mkv"), "{missing}");
    }
}

#[test]
fn ctrl_c_ends_it_with_its_files_closed_and_no_process_left() {
    if !installed(&["ffmpeg"]) {
        return;
    }
    let temp = tempfile::tempdir().unwrap();
    let bundle = means(temp.path());
    // More answers than the pipe to us holds: it cannot be at its end when it is interrupted.
    let clip = film(temp.path(), (64, 48), 4000);
    let csv = temp.path().join("answers.csv");
    let mut child = edgewarden()
        .arg("predict")
        .arg(&bundle)
        .arg(&clip)
        .arg("--csv")
        .arg(&csv)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answers = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    answers.read_line(&mut first).unwrap();
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::INT).unwrap();
    let mut rest = String::new();
    answers.read_to_string(&mut rest).unwrap();
    let status = wait_until("its end", HANG, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(130));
    let answered = 1 + rest.lines().count();
    assert!(answered < 4000, "it went on to the end");
    let table = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 1 + 3 * answered, "every answer is in the table");
    let path = temp.path().to_str().unwrap();
    wait_until("the end of ffmpeg", HANG, || running(path).is_empty().then_some(()));
}
