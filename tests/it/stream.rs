//! Sources that another program reads, with real programs: small ones that misbehave here, cameras and
//! films in the files below.

/// A program that stalls and breaks, through the whole daemon.
mod agent;
/// Films, cameras on the network and over HTTP, by every program that can read them.
mod real;

use crate::support::stream::{running, wait_gone};
use crate::support::{Config, Edgewarden, HANG, wait_until};
use edgewarden::domain::source::SourceSettings;
use edgewarden::domain::stream::{StreamFormat, StreamSettings};
use edgewarden::domain::{FrameFormat, Reason};
use edgewarden::inference::source::{self, Next, Picture, Source, Trouble};
use edgewarden::process::child::{CaptureChild, Event};
use edgewarden::process::frames;
use edgewarden::process::protocol::{FrameChannel, FromCapture, ToCapture};
use std::path::Path;
use std::time::{Duration, Instant};

/// A wait as the capture child has it.
const WAIT: Duration = Duration::from_millis(100);

fn shell(script: &str, format: StreamFormat, film: bool) -> StreamSettings {
    let program = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    StreamSettings::Command { program, format, film, repeat: false }
}

fn live(script: &str) -> Box<dyn Source> {
    open(shell(script, StreamFormat::Mjpeg, false))
}

fn open(settings: StreamSettings) -> Box<dyn Source> {
    source::open(&SourceSettings::Stream(settings)).unwrap()
}

/// The next answer that is not "ask again".
fn ask(source: &mut dyn Source, into: &mut Vec<u8>) -> Result<Option<Picture>, Trouble> {
    let start = Instant::now();
    loop {
        match source.next(1, into, WAIT)? {
            Next::Picture(picture) => return Ok(Some(picture)),
            Next::Ended => return Ok(None),
            Next::Pending => assert!(start.elapsed() < HANG, "nothing came"),
        }
    }
}

/// The next frame's bytes; what goes wrong before it is passed over.
fn frame(source: &mut dyn Source) -> (Picture, Vec<u8>) {
    let mut into = Vec::new();
    let start = Instant::now();
    loop {
        match ask(source, &mut into) {
            Ok(Some(picture)) => return (picture, into),
            Ok(None) => panic!("it ended"),
            Err(Trouble::Frame(_)) => assert!(start.elapsed() < HANG, "only trouble came"),
            Err(Trouble::Lost(reason)) => panic!("{reason}"),
        }
    }
}

fn fault(source: &mut dyn Source) -> Reason {
    match ask(source, &mut Vec::new()) {
        Err(Trouble::Frame(reason)) => reason,
        other => panic!("no fault but {other:?}"),
    }
}

/// A file in a folder that stays for the test.
fn jpeg_file() -> (tempfile::TempDir, String, Vec<u8>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.jpg");
    let jpeg = crate::support::colour_model::jpeg([9, 200, 30]);
    std::fs::write(&path, &jpeg).unwrap();
    let path = path.to_str().unwrap().to_owned();
    (folder, path, jpeg)
}

#[test]
fn a_film_gives_each_frame_once_and_ends_or_begins_again() {
    let script = "printf 'YUV4MPEG2 W4 H1 Cmono\\nFRAME\\naaaaFRAME\\nbbbbFRAME\\ncccc'";
    let mut film = open(shell(script, StreamFormat::Y4m, true));
    let mut into = Vec::new();
    for expected in [b"aaaa", b"bbbb", b"cccc"] {
        let picture = ask(&mut *film, &mut into).unwrap().unwrap();
        assert_eq!((picture.width, picture.height, picture.format), (4, 1, FrameFormat::Grey8));
        assert_eq!(into, expected);
    }
    assert_eq!(ask(&mut *film, &mut into), Ok(None));
    assert_eq!(ask(&mut *film, &mut into), Ok(None));

    let mut torn = open(shell(&format!("{script}; printf 'FRAME\\ndd'"), StreamFormat::Y4m, true));
    (0..3).for_each(|_| drop(frame(&mut *torn)));
    assert!(fault(&mut *torn).detail.contains("cut short"));
    assert_eq!(ask(&mut *torn, &mut into), Ok(None));

    let StreamSettings::Command { program, format, film, .. } = shell(script, StreamFormat::Y4m, true) else {
        unreachable!()
    };
    let mut again = open(StreamSettings::Command { program, format, film, repeat: true });
    let seen: Vec<u8> = (0..7).map(|_| frame(&mut *again).1[0]).collect();
    assert_eq!(seen, *b"abcabca");
}

#[test]
fn a_film_that_is_not_read_waits_and_loses_nothing() {
    // Ten times what a pipe holds.
    let script = "printf 'YUV4MPEG2 W1024 H1024 Cmono\\n'; for i in 0 1 2 3 4 5 6 7 8 9; do printf 'FRAME\\n'; \
                  head -c 1048576 /dev/zero | tr '\\0' $i; done";
    let mut film = open(shell(script, StreamFormat::Y4m, true));
    let mut seen = Vec::new();
    for _ in 0..10 {
        seen.push(frame(&mut *film).1[77]);
        film.pause(true).unwrap();
        film.pause(false).unwrap();
    }
    assert_eq!(seen, *b"0123456789");
    assert_eq!(ask(&mut *film, &mut Vec::new()), Ok(None));
}

#[test]
fn a_camera_that_ends_is_started_again_with_its_last_words_told_and_at_last_given_up() {
    let (_folder, path, jpeg) = jpeg_file();
    let mut camera = live(&format!("cat {path}; echo first >&2; echo the camera was unplugged >&2; exit 3"));
    for _ in 0..3 {
        assert_eq!(frame(&mut *camera).1, jpeg);
        let told = fault(&mut *camera).detail;
        assert!(told.contains("source command: sh ended with status 3: the camera was unplugged"), "{told}");
    }
    assert_eq!(frame(&mut *camera).1, jpeg);
    let Err(Trouble::Lost(reason)) = ask(&mut *camera, &mut Vec::new()) else { panic!("not given up") };
    assert!(reason.detail.contains("unplugged"), "{reason}");

    let told = fault(&mut *live("exit 0")).detail;
    assert!(told.contains("ended without a picture and without a word"), "{told}");
    let told = fault(&mut *live("kill -9 $$")).detail;
    assert!(told.contains("was killed by signal 9"), "{told}");
}

#[test]
fn the_newest_picture_of_a_camera_wins() {
    let folder = tempfile::tempdir().unwrap();
    let done = folder.path().join("done");
    let script = format!(
        "printf 'YUV4MPEG2 W4 H1 Cmono\\n'; for i in 1 2 3 4 5 6 7 8; do printf \"FRAME\\n$i$i$i$i\"; done; \
         touch {}; exec sleep 1000",
        done.display()
    );
    let mut camera = open(shell(&script, StreamFormat::Y4m, false));
    let mut into = Vec::new();
    assert_eq!(camera.next(1, &mut into, Duration::ZERO), Ok(Next::Pending), "it has only just started");
    wait_until("the last picture", HANG, || done.exists().then_some(()));
    assert_eq!(frame(&mut *camera).1, b"8888");
    assert_eq!(camera.next(1, &mut into, WAIT), Ok(Next::Pending));
}

#[test]
fn garbage_between_pictures_is_passed_over_and_nothing_but_garbage_is_told() {
    let (_folder, path, jpeg) = jpeg_file();
    let mut noisy = live(&format!("while :; do printf 'x\\377yz\\r\\n--next'; cat {path}; done"));
    (0..20).for_each(|_| assert_eq!(frame(&mut *noisy).1, jpeg));
    for endless in ["exec yes", "exec cat /dev/zero"] {
        let told = fault(&mut *live(endless)).detail;
        assert!(told.contains("bytes without a JPEG"), "{told}");
    }
    let y4m = |script: &str| fault(&mut *open(shell(script, StreamFormat::Y4m, false))).detail;
    assert!(y4m("exec yes").contains("must begin with YUV4MPEG2"));
    assert!(y4m("printf 'YUV4MPEG2 W4 H4 C444\\n'; exec sleep 1000").contains("-pix_fmt yuv420p"));
    assert!(y4m("printf 'YUV4MPEG2 W60000 H60000\\n'; exec sleep 1000").contains("scale it down"));
    // A picture that never ends.
    let script = "printf '\\377\\330\\377\\332\\000\\002'; exec cat /dev/zero";
    assert!(fault(&mut *live(script)).detail.contains("make the picture smaller"));
}

#[test]
fn a_silent_program_is_waited_for_in_short_turns_and_ends_with_its_source() {
    let mut silent = live("exec sleep 71001");
    for _ in 0..3 {
        assert_eq!(silent.next(1, &mut Vec::new(), Duration::from_millis(1)), Ok(Next::Pending));
    }
    assert_eq!(running("sleep 71001").len(), 1);
    drop(silent);
    wait_gone("sleep 71001");
}

#[test]
fn a_pipeline_ends_as_a_whole_also_when_it_does_not_want_to() {
    for script in [
        "sleep 71002 | cat",
        "trap '' TERM; sleep 71002; sleep 71002",
        // The leader ends, the rest stays and holds the pipe.
        "sleep 71002 & exit 1",
        "(sleep 71002 &) ; sleep 71002",
    ] {
        let mut source = live(script);
        let mut trouble = None;
        wait_until("the pipeline", HANG, || {
            trouble = trouble.take().or(source.next(1, &mut Vec::new(), Duration::from_millis(1)).err());
            (trouble.is_some() || !running("sleep 71002").is_empty()).then_some(())
        });
        drop(source);
        wait_gone("sleep 71002");
    }
}

#[test]
fn a_paused_camera_is_ended_and_comes_back() {
    let (_folder, path, jpeg) = jpeg_file();
    let mut camera = live(&format!("while :; do cat {path}; sleep 0.0171003; done"));
    assert_eq!(frame(&mut *camera).1, jpeg);
    camera.pause(true).unwrap();
    wait_gone("sleep 0.0171003");
    camera.pause(false).unwrap();
    assert_eq!(frame(&mut *camera).1, jpeg);
}

#[test]
fn a_program_that_is_not_there_is_named() {
    let program = vec!["/no/such/camera".to_owned()];
    let settings = StreamSettings::Command { program, format: StreamFormat::Y4m, film: false, repeat: false };
    let reason = source::open(&SourceSettings::Stream(settings)).err().unwrap();
    assert!(reason.detail.contains("/no/such/camera is not there; correct source.program"), "{reason}");
}

/// A capture child over `script`, up to its first sign that the program runs.
fn capture(
    folder: &Path,
    script: &str,
    until: impl Fn(&FromCapture) -> bool,
) -> (CaptureChild, FrameChannel) {
    let unique = folder.file_name().unwrap().to_str().unwrap().trim_start_matches('.');
    let channel = FrameChannel {
        root: folder.join("run"),
        prefix: format!("ewst{unique}_"),
        pipeline: "belt".parse().unwrap(),
        readers: 1,
        every: false,
    };
    let source = SourceSettings::Stream(shell(script, StreamFormat::Mjpeg, false));
    let configure =
        ToCapture::Configure { source, fps: 50.0, channel: channel.clone(), first_seq: 1, motion: None };
    let child = tokio::runtime::Handle::current().block_on(async {
        let mut child = CaptureChild::start_capture(Edgewarden::path(), "belt", configure).await.unwrap();
        loop {
            match child.recv().await.unwrap() {
                Event::Message(said) if until(&said) => return child,
                Event::Message(_) => {}
                Event::Exited(exit) => panic!("{}", exit.text),
            }
        }
    });
    (child, channel)
}

#[test]
fn a_killed_capture_child_leaves_nothing_of_its_program_behind() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let _entered = runtime.enter();
    let (folder, path, _jpeg) = jpeg_file();
    let script = format!("(while :; do cat {path}; sleep 0.0271004; done) & sleep 71004 | cat");
    let (child, channel) =
        capture(folder.path(), &script, |said| matches!(said, FromCapture::Published { .. }));
    wait_until("the pipeline", HANG, || (!running("sleep 71004").is_empty()).then_some(()));
    // As the agent does with a child that has stalled.
    child.kill();
    wait_gone("71004");
    wait_until("the channel", HANG, || frames::remove(&channel).ok());
}

#[test]
fn check_prints_the_command_and_names_what_is_missing() {
    let text = "[[pipeline]]\n[pipeline.source]\nkind = \"command\"\nformat = \"mjpeg\"\n";
    let good = Config::new(&format!("{text}program = [\"sh\", \"-c\", \"echo $HOME\"]\n"));
    let seen = Edgewarden::run(["check", "--config", good.path().to_str().unwrap()]).stdout;
    assert!(seen.contains("ok    source of main: command, read by: sh -c 'echo $HOME'"), "{seen}");
    let bad = Config::new(&format!("{text}program = [\"/no/such\"]\n"));
    let seen = Edgewarden::run(["check", "--config", bad.path().to_str().unwrap()]).stdout;
    assert!(seen.contains("fail  source of main: the program /no/such is not there"), "{seen}");
}
