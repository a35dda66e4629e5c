//! The child processes, as real processes of the real program: frames, results, deaths, and a swap
//! that loses nothing.

use crate::support::colour_model::{colour_bundle, jpeg};
use edgewarden::domain::admission::AdmissionSettings;
use edgewarden::domain::ledger::{Ledger, Span};
use edgewarden::domain::manifest::Provider;
use edgewarden::domain::runtime::{InputSettings, RuntimeSettings, Tuning};
use edgewarden::domain::source::SourceSettings;
use edgewarden::domain::{Digest, FrameFormat, FrameResult, Reason, ReasonCode};
use edgewarden::process::child::{CaptureChild, Child, Event, InferChild};
use edgewarden::process::codec::{Reader, Writer};
use edgewarden::process::cost::Priority;
use edgewarden::process::exit::Exit;
use edgewarden::process::frames::{self, FrameSubscriber};
use edgewarden::process::protocol::{FrameChannel, FromCapture, FromInfer, ToCapture, ToInfer};
use rustix::process::{Pid, Signal, kill_process};
use std::collections::BTreeSet;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Frames that are too old.
mod age;
/// One model hands over to another.
mod handover;
/// A model that hangs.
mod hang;
/// A model that took its process over.
mod locked;

/// A hang guard, never a measure.
const GUARD: Duration = Duration::from_secs(180);

fn exe() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_edgewarden"))
}

/// A folder and a frame channel of a test's own, which leaves nothing behind.
struct Place {
    dir: tempfile::TempDir,
    channel: FrameChannel,
    input: InputSettings,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let unique = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
        let channel = FrameChannel {
            root: dir.path().join("run"),
            prefix: format!("ewit{unique}_"),
            pipeline: "belt".parse().unwrap(),
            readers: 1,
            every: false,
        };
        Self { dir, channel, input: InputSettings::default() }
    }

    fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    fn in_shared_memory(&self) -> usize {
        let names = std::fs::read_dir("/dev/shm").unwrap().map(|entry| entry.unwrap().file_name());
        names.filter(|name| name.to_string_lossy().starts_with(&self.channel.prefix)).count()
    }

    fn camera(&self, source: SourceSettings, fps: f32, first_seq: u64) -> ToCapture {
        ToCapture::Configure { source, fps, channel: self.channel.clone(), first_seq, motion: None }
    }

    fn synthetic(&self, fps: f32, first_seq: u64) -> ToCapture {
        self.camera(SourceSettings::Synthetic { seed: 1, width: 64, height: 48 }, fps, first_seq)
    }

    fn model(&self, dir: &Path, digest: Digest) -> ToInfer {
        self.model_on(library().expect("checked before"), dir, digest)
    }

    /// The same on another runtime.
    fn model_on(&self, library: PathBuf, dir: &Path, digest: Digest) -> ToInfer {
        ToInfer::Configure {
            bundle: dir.to_owned(),
            digest,
            runtime: RuntimeSettings {
                library,
                providers: vec![Provider::Cpu],
                required: true,
                intra_threads: Some(1),
                engine_cache: self.folder("engines"),
                tuning: Tuning::default(),
            },
            input: self.input,
            channel: self.channel.clone(),
            model_keys: Vec::new(),
            admission: AdmissionSettings::default(),
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // A child that was dropped is killed, and may take a moment to be gone.
        let start = std::time::Instant::now();
        while let Err(error) = frames::remove(&self.channel) {
            if start.elapsed() > GUARD {
                eprintln!("left behind: {error}");
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

fn library() -> Option<PathBuf> {
    let path = std::env::var_os("EDGEWARDEN_ONNXRUNTIME").map(PathBuf::from).unwrap_or_else(|| {
        concat!(env!("CARGO_MANIFEST_DIR"), "/.deps/onnxruntime/libonnxruntime.so").into()
    });
    let found = path.exists();
    if !found {
        println!("skipped: no ONNX Runtime at {} (packaging/setup.sh fetches it)", path.display());
    }
    found.then_some(path)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(GUARD, future).await.expect("hung") })
}

/// The next thing that `wanted` picks out; what it passes over is dropped.
async fn next<In, Out, T>(child: &mut Child<In, Out>, mut wanted: impl FnMut(Out) -> Option<T>) -> T
where
    In: serde::Serialize + Send + 'static,
    Out: serde::de::DeserializeOwned + Send + 'static,
{
    loop {
        match child.recv().await.expect("an event") {
            Event::Message(message) => {
                if let Some(found) = wanted(message) {
                    return found;
                }
            }
            Event::Exited(exit) => panic!("{}", exit.text),
        }
    }
}

async fn exit<In, Out>(child: &mut Child<In, Out>) -> Exit
where
    In: serde::Serialize + Send + 'static,
    Out: serde::de::DeserializeOwned + Send + 'static,
{
    loop {
        if let Event::Exited(exit) = child.recv().await.expect("an exit") {
            return exit;
        }
    }
}

fn signal(pid: u32, signal: Signal) {
    kill_process(Pid::from_raw(pid as i32).unwrap(), signal).unwrap();
}

async fn published(child: &mut CaptureChild) -> u64 {
    next(child, |message| match message {
        FromCapture::Published { seq } => Some(seq),
        FromCapture::Failed { reason } => panic!("{reason}"),
        FromCapture::Opened { .. }
        | FromCapture::Alive { .. }
        | FromCapture::Fault { .. }
        | FromCapture::Snapshot { .. }
        | FromCapture::Ended => None,
    })
    .await
}

#[test]
fn a_folder_of_jpegs_arrives_as_it_is_and_bad_files_are_named() {
    let place = Place::new();
    let folder = place.folder("pictures");
    let pictures = [jpeg([250, 0, 0]), jpeg([0, 250, 0]), jpeg([0, 0, 250])];
    for (name, picture) in ["a.jpg", "c.jpg", "d.jpg"].iter().zip(&pictures) {
        std::fs::write(folder.join(name), picture).unwrap();
    }
    std::fs::write(folder.join("b.jpg"), b"this is no picture").unwrap();
    let subscriber = FrameSubscriber::open(&place.channel).unwrap();
    let source = SourceSettings::Folder { path: folder, repeat: false };
    block_on(async {
        let configure = place.camera(source, 5.0, 41);
        let mut child = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
        let mut told = Vec::new();
        let mut seen = Vec::new();
        loop {
            match child.recv().await.unwrap() {
                Event::Message(FromCapture::Published { seq }) => {
                    let lease = subscriber.take().unwrap().expect("the frame that was just published");
                    assert_eq!((lease.seq(), lease.view().meta.format), (seq, FrameFormat::Jpeg));
                    assert_eq!((lease.view().meta.width, lease.view().meta.height), (32, 24));
                    seen.push((seq, lease.view().bytes.to_vec()));
                }
                Event::Message(FromCapture::Opened { description }) => told.push(description),
                Event::Message(FromCapture::Fault { reason }) => told.push(reason.detail),
                Event::Message(FromCapture::Ended) => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(seen, [(41, pictures[0].clone()), (42, pictures[1].clone()), (43, pictures[2].clone())]);
        assert!(told[0].contains("4 pictures, once"), "{told:?}");
        assert!(told.len() == 2 && told[1].contains("b.jpg"), "{told:?}");

        // At its end it still answers for its last frame, scaled.
        child.send(ToCapture::Snapshot { id: 9, max_edge: 16, boxes: None }).unwrap();
        let jpeg = next(&mut child, |message| match message {
            FromCapture::Snapshot { id: 9, jpeg } => Some(jpeg.unwrap()),
            _ => None,
        })
        .await;
        use base64::Engine;
        let jpeg = base64::engine::general_purpose::STANDARD.decode(jpeg).unwrap();
        let picture = turbojpeg::decompress(&jpeg, turbojpeg::PixelFormat::RGB).unwrap();
        assert_eq!((picture.width, picture.height), (16, 12));
        assert!(picture.pixels[2] > 200, "blue");
        assert!(child.close(GUARD).await.clean, "a closed socket ends it in good order");
    });
}

#[test]
fn of_a_fast_source_not_each_frame_is_told_but_always_the_last() {
    let place = Place::new();
    let folder = place.folder("pictures");
    for name in 0..60 {
        std::fs::write(folder.join(format!("{name:02}.jpg")), jpeg([9, 9, 9])).unwrap();
    }
    let source = SourceSettings::Folder { path: folder, repeat: false };
    block_on(async {
        let configure = place.camera(source, 1000.0, 1);
        let mut child = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
        let mut told = Vec::new();
        loop {
            match child.recv().await.unwrap() {
                Event::Message(FromCapture::Published { seq }) => told.push(seq),
                Event::Message(FromCapture::Ended) => break,
                Event::Message(FromCapture::Opened { .. }) => {}
                other => panic!("{other:?}"),
            }
        }
        assert!(told.is_sorted_by(|a, b| a < b), "{told:?}");
        assert_eq!(told.last(), Some(&60), "the frames after the last word are told before the end");
    });
}

#[test]
fn a_source_that_cannot_be_opened_is_told_and_the_child_ends() {
    let place = Place::new();
    let source = SourceSettings::Folder { path: place.folder("empty"), repeat: true };
    block_on(async {
        let configure = place.camera(source, 5.0, 1);
        let mut child = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
        let reason = next(&mut child, |message| match message {
            FromCapture::Failed { reason } => Some(reason),
            _ => None,
        })
        .await;
        assert!(reason.detail.contains("no pictures in it"), "{reason}");
        let exit = exit(&mut child).await;
        assert!(!exit.clean && exit.text.contains("ended with status 1"), "{}", exit.text);
    });
}

#[test]
fn a_killed_capture_child_is_replaced_and_the_subscriber_never_notices_more_than_a_gap() {
    let place = Place::new();
    let subscriber = FrameSubscriber::open(&place.channel).unwrap();
    block_on(async {
        let mut first_seq = 1;
        for _ in 0..3 {
            let configure = place.synthetic(100.0, first_seq);
            let mut child = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
            assert_eq!(published(&mut child).await, first_seq, "numbers go on");
            let mut newest = first_seq;
            while newest < first_seq + 5 {
                newest = published(&mut child).await;
            }
            let lease = subscriber.newest(GUARD).unwrap().expect("a frame of the new publisher");
            assert!(lease.seq() >= first_seq);
            signal(child.pid(), Signal::KILL);
            // The frame outlives the process that made it.
            assert_eq!(lease.view().bytes.len(), 64 * 48 * 3);
            let exit = exit(&mut child).await;
            assert!(exit.text.contains("killed by SIGKILL, not by the agent"), "{}", exit.text);
            assert_eq!(exit.reason().code, ReasonCode::ChildCrashed);
            drop(lease);
            while let Some(lease) = subscriber.take().unwrap() {
                newest = newest.max(lease.seq());
            }
            first_seq = newest + 1;
        }
    });
    let before = place.in_shared_memory();
    assert_eq!(frames::cleanup(&place.channel).unwrap(), 1, "the last of the killed is buried");
    assert!(place.in_shared_memory() < before);
    drop(subscriber);
    // Now nobody is left, and nothing may be.
    frames::remove(&place.channel).unwrap();
    assert_eq!(place.in_shared_memory(), 0);
    assert!(!place.channel.root.exists());
}

#[test]
fn a_paused_camera_publishes_nothing() {
    let place = Place::new();
    block_on(async {
        let configure = place.synthetic(200.0, 1);
        let mut child = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
        let mut newest = published(&mut child).await;
        child.send(ToCapture::Pause { paused: true }).unwrap();
        // An answer after the pause divides what came before it from what comes after.
        for id in 1..=2 {
            child.send(ToCapture::Snapshot { id, max_edge: 0, boxes: None }).unwrap();
            let mut between = 0;
            next(&mut child, |message| match message {
                FromCapture::Published { seq } => {
                    newest = seq;
                    between += 1;
                    None
                }
                FromCapture::Snapshot { id: got, jpeg } => {
                    assert!(jpeg.is_ok());
                    (got == id).then_some(())
                }
                _ => None,
            })
            .await;
            if id == 1 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            } else {
                assert_eq!(between, 0);
            }
        }
        child.send(ToCapture::Pause { paused: false }).unwrap();
        assert_eq!(published(&mut child).await, newest + 1);
    });
}

/// One child without the agent's side: the process, and this end of its socket.
fn bare(role: &str) -> (std::process::Child, UnixStream) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let child = Command::new(exe())
        .args(["child", role])
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    (child, ours)
}

#[test]
fn a_child_ends_with_its_socket_and_with_its_agent() {
    for role in ["capture", "infer"] {
        let (mut child, socket) = bare(role);
        drop(socket);
        assert_eq!(child.wait().unwrap().code(), Some(0), "{role}");
    }
    let place = Place::new();
    let (mut child, socket) = bare("capture");
    Writer::new(&socket).write(&place.synthetic(50.0, 1)).unwrap();
    let mut reader = Reader::<_, FromCapture>::new(&socket);
    while !matches!(reader.read().unwrap(), Some(FromCapture::Published { .. })) {}
    drop(reader);
    drop(socket);
    assert_eq!(child.wait().unwrap().code(), Some(0));

    // To the kernel the parent is the thread that spawned: it ends, and the socket stays open.
    let configure = place.synthetic(50.0, 1);
    let (mut child, _socket) = std::thread::spawn(move || {
        let (child, socket) = bare("capture");
        Writer::new(&socket).write(&configure).unwrap();
        let mut reader = Reader::<_, FromCapture>::new(&socket);
        while !matches!(reader.read().unwrap(), Some(FromCapture::Published { .. })) {}
        (child, socket)
    })
    .join()
    .unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
}

#[test]
fn a_child_is_no_command_for_people_and_understands_only_the_agent() {
    let output = Command::new(exe()).args(["child", "infer"]).stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64));
    assert!(String::from_utf8_lossy(&output.stderr).contains("this command is for the agent"));

    let (mut child, socket) = bare("capture");
    Writer::new(&socket).write(&ToCapture::Pause { paused: true }).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
}

async fn loaded(place: &Place, dir: &Path, digest: Digest) -> InferChild {
    let configure = place.model(dir, digest);
    let mut child = InferChild::start_infer(exe(), "colour", configure, Priority::Normal).await.unwrap();
    next(&mut child, |message| match message {
        FromInfer::Loaded { release, provider, .. } => {
            assert_eq!((release.to_string().as_str(), provider), ("colour@1.0.0", Provider::Cpu));
            Some(())
        }
        FromInfer::Failed { reason } => panic!("{reason}"),
        other => panic!("{other:?}"),
    })
    .await;
    child
}

#[test]
fn a_locked_in_child_keeps_its_graph_for_the_next_start_in_a_folder_of_its_own() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    let dir = place.folder("bundle");
    let digest = colour_bundle(&dir);
    let start = || {
        block_on(async {
            let configure = place.model(&dir, digest);
            let mut child =
                InferChild::start_infer(exe(), "colour", configure, Priority::Normal).await.unwrap();
            next(&mut child, |message| match message {
                FromInfer::Loaded { shares, saved_graph, load_ms, .. } => {
                    assert_eq!((shares.len(), shares[0].provider.as_str()), (1, "cpu"));
                    Some((saved_graph, load_ms))
                }
                other => panic!("{other:?}"),
            })
            .await
        })
    };
    let (first, second) = (start(), start());
    println!("load {:.1} ms from the bundle, {:.1} ms from the saved graph", first.1, second.1);
    assert_eq!((first.0, second.0), (false, true));
    let manifest = edgewarden::bundle::open(&dir, None).unwrap().manifest;
    let model = manifest.files.iter().find(|file| file.path == manifest.model).unwrap().sha256;
    let made: Vec<_> =
        std::fs::read_dir(place.folder("engines")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(made, [model.to_string().as_str()]);
}

#[test]
fn a_model_is_locked_in_tried_and_answers_and_its_death_is_told() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    let dir = place.folder("bundle");
    let digest = colour_bundle(&dir);
    let pictures = place.folder("pictures");
    std::fs::write(pictures.join("a.jpg"), jpeg([0, 10, 240])).unwrap();
    block_on(async {
        let mut model = loaded(&place, &dir, digest).await;
        let status = std::fs::read_to_string(format!("/proc/{}/status", model.pid())).unwrap();
        assert!(status.contains("NoNewPrivs:\t1"), "{status}");

        model.send(ToInfer::RunGolden).unwrap();
        let mut progress = Vec::new();
        let (verdict, times) = next(&mut model, |message| match message {
            FromInfer::GoldenProgress { done, total } => {
                progress.push((done, total));
                None
            }
            FromInfer::Golden { verdict, times_ms } => Some((verdict, times_ms)),
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!((verdict, times.len(), progress), (Ok(()), 1, vec![(1, 1)]));

        let source = SourceSettings::Folder { path: pictures, repeat: true };
        let configure = place.camera(source, 50.0, 1);
        let mut camera = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
        published(&mut camera).await;
        model.send(ToInfer::Start { from: 3 }).unwrap();
        let result: FrameResult = next(&mut model, |message| match message {
            FromInfer::Frame { result, .. } => Some(result.unwrap()),
            FromInfer::Started { from } => {
                assert!(from >= 3);
                None
            }
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(result.output.classes[0].label, "blue");
        assert_eq!(result.size, [32, 24]);
        assert!(result.latency_ms > 0.0 && result.latency_ms < GUARD.as_millis() as f32);

        // A hung child says nothing; the agent kills it.
        signal(model.pid(), Signal::STOP);
        model.kill();
        let text = exit(&mut model).await.text;
        assert!(text.contains("killed by the agent (SIGKILL)"), "{text}");

        let mut model = loaded(&place, &dir, digest).await;
        signal(model.pid(), Signal::ABORT);
        let text = exit(&mut model).await.text;
        assert!(text.starts_with("infer colour (pid ") && text.contains("was killed by SIGABRT"), "{text}");
        published(&mut camera).await;
    });
}

#[test]
fn a_bundle_that_was_changed_is_not_loaded() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    let dir = place.folder("bundle");
    let digest = colour_bundle(&dir);
    let mut model = std::fs::read(dir.join("model.onnx")).unwrap();
    model[20] ^= 1;
    std::fs::write(dir.join("model.onnx"), model).unwrap();
    block_on(async {
        let configure = place.model(&dir, digest);
        let mut child = InferChild::start_infer(exe(), "colour", configure, Priority::Normal).await.unwrap();
        let reason: Reason = next(&mut child, |message| match message {
            FromInfer::Failed { reason } => Some(reason),
            other => panic!("{other:?}"),
        })
        .await;
        assert_eq!(reason.code, ReasonCode::DigestMismatch, "{reason}");
        assert!(exit(&mut child).await.text.contains("ended with status 1"));
    });
}
