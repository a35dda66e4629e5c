//! Sources that wait, with every frame answered: a folder and a film read once as fast as the model goes,
//! over swaps, and over the death of either child.

use crate::support::colour_model::colour_bundle;
use crate::support::device::{Device, Options, PATIENCE, PIPELINE, Repository, release, signal};
use crate::support::mosquitto::Mosquitto;
use crate::support::stream::{film, installed};
use crate::support::wait_until;
use edgewarden::domain::health::PipelineState;
use edgewarden::domain::metrics::FrameCounts;
use rustix::process::Signal;
use std::path::Path;

/// A picture that takes its time to be decoded: noise with one strong colour.
fn noisy(strong: usize) -> Vec<u8> {
    let (width, height) = (800, 600);
    let mut state = 1_u32;
    let pixels: Vec<u8> = (0..width * height * 3)
        .map(|at| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8 / 3 + if at % 3 == strong { 170 } else { 0 }
        })
        .collect();
    let image = turbojpeg::Image {
        pixels: pixels.as_slice(),
        width,
        pitch: width * 3,
        height,
        format: turbojpeg::PixelFormat::RGB,
    };
    turbojpeg::compress(image, 90, turbojpeg::Subsamp::None).unwrap().to_vec()
}

/// A folder of so many pictures: red, green, blue and so on.
fn pictures(folder: &Path, count: usize) {
    std::fs::create_dir(folder).unwrap();
    for strong in 0..3 {
        let original = folder.join(format!("original-{strong}"));
        std::fs::write(&original, noisy(strong)).unwrap();
        for at in (strong..count).step_by(3) {
            std::fs::hard_link(&original, folder.join(format!("{at:04}.jpg"))).unwrap();
        }
    }
}

fn colours(repository: &mut Repository) -> String {
    let bundle = repository.dir.path().join("colours");
    std::fs::create_dir(&bundle).unwrap();
    colour_bundle(&bundle);
    repository.publisher.publish(&bundle, jiff::Timestamp::now(), &|_| {}).unwrap().release.to_string()
}

fn options(broker: &Mosquitto, repository: &Repository, source: &str) -> Options {
    let source: toml::Table = source.parse().unwrap();
    Options::new(broker, repository).set("pipeline.source", source).set("pipeline.fps", "max")
}

fn once(folder: &Path) -> String {
    format!("kind = \"folder\"\nrepeat = false\npath = \"{}\"", folder.display())
}

fn counts(device: &Device) -> FrameCounts {
    let metrics = device.status().metrics;
    metrics.pipelines.iter().find(|pipeline| pipeline.name.as_str() == PIPELINE).expect("it").frames
}

/// The account once the source is at its end, however long that takes as long as it goes on.
fn at_the_end(device: &Device) -> FrameCounts {
    loop {
        let before = device.heard.lock().unwrap().frames.len();
        let ended = device.until("the end of the film or another answer", |heard| {
            let ended = heard.health.last()?.pipelines[0].state == PipelineState::Ended;
            (ended || heard.frames.len() > before).then_some(ended)
        });
        if ended {
            break;
        }
    }
    let counts = counts(device);
    device.until("every answer", |heard| (heard.frames.len() as u64 >= counts.answered).then_some(()));
    counts
}

/// Frame `n` is picture `n`, which its colour tells.
fn assert_in_order(device: &Device) {
    let frames = &device.heard.lock().unwrap().frames;
    assert!(frames.windows(2).all(|pair| pair[0].seq < pair[1].seq), "in order, none twice");
    for frame in frames {
        let colour = u64::from(frame.output.classes[0].class);
        assert_eq!(colour, (frame.seq - 1) % 3, "frame {} is its picture", frame.seq);
    }
}

#[test]
fn every_picture_of_a_folder_read_once_is_answered() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let release = colours(&mut repository);
    let folder = repository.dir.path().join("pictures");
    pictures(&folder, 200);
    let mut device = Device::new(options(&broker, &repository, &once(&folder)));
    device.start();
    // Without a model nothing of it is wasted.
    let idle = wait_until("an open source", PATIENCE, || {
        let status = device.status();
        status.metrics.processes.iter().any(|one| one.role.starts_with("capture")).then_some(status)
    });
    assert_eq!(idle.health.pipelines[0].state, PipelineState::NoModel);
    device.update(&release).unwrap();
    let counts = at_the_end(&device);
    let wanted = FrameCounts { captured: 200, answered: 200, ..FrameCounts::default() };
    assert_eq!(counts, wanted);
    assert_in_order(&device);
}

#[test]
fn a_child_that_dies_in_the_middle_costs_what_was_in_it_and_no_more() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&[]);
    let release = colours(&mut repository);
    let folder = repository.dir.path().join("pictures");
    pictures(&folder, 1500);
    let device = Device::serving(options(&broker, &repository, &once(&folder)), &release);

    signal(device.child("capture"), Signal::KILL);
    device.until_frames(50);
    signal(device.child("infer"), Signal::KILL);
    device.until_frames(50);
    let before = device.heard.lock().unwrap().frames.last().unwrap().seq;
    assert!(before < 1500, "the film was over before its children were killed");
    let counts = at_the_end(&device);
    assert_eq!((counts.captured, counts.skipped, counts.failed), (1500, 0, 0), "{counts:?}");
    assert_eq!(counts.answered + counts.unserved, 1500, "{counts:?}");
    assert!(counts.unserved <= 3, "what was on its way to the model: {counts:?}");
    assert_in_order(&device);
}

#[test]
fn a_film_loses_no_frame_to_a_swap() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1", "v2"]);
    let scene = "kind = \"synthetic\"\nseed = 7\nwidth = 640\nheight = 480";
    let device = Device::serving(options(&broker, &repository, scene), &release(1));
    for next in [release(2), release(1), release(2)] {
        device.update(&next).unwrap_or_else(|reason| panic!("{next}: {reason}"));
    }
    device.until_frames(20);
    let counts = counts(&device);
    let lost = [counts.skipped, counts.unserved, counts.stale, counts.paced, counts.failed];
    assert_eq!(lost, [0; 5], "{counts:?}");
    assert!(counts.captured - counts.answered <= 3, "no more than may be on their way: {counts:?}");
    let frames = &device.heard.lock().unwrap().frames;
    assert!(frames.windows(2).all(|pair| pair[0].seq + 1 == pair[1].seq), "every number, once, in order");
}

#[test]
fn every_frame_of_a_video_is_answered() {
    if !installed(&["ffmpeg"]) {
        return;
    }
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let path = film(repository.dir.path(), (640, 360), 200);
    let mut source: toml::Table = "kind = \"video\"\nrepeat = false".parse().unwrap();
    source.insert("path".into(), path.to_str().unwrap().into());
    let device = Device::serving(options(&broker, &repository, &source.to_string()), &release(1));
    let wanted = FrameCounts { captured: 200, answered: 200, ..FrameCounts::default() };
    assert_eq!(at_the_end(&device), wanted);
}
