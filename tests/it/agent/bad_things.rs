//! Bad libraries, models, manifests and pictures: one clear line each, and the model that serves
//! goes on.

use crate::support::device::{Device, Options, PATIENCE, Repository, SLOT, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::{root, wait_until};
use edgewarden::domain::ReasonCode;
use edgewarden::domain::deployment::Stage;
use edgewarden::domain::health::{PipelineState, ProblemCode};
use serde_json::json;
use std::path::Path;

/// An ELF file of another processor.
fn foreign_elf() -> Vec<u8> {
    let mut elf = vec![0u8; 64];
    elf[..6].copy_from_slice(b"\x7fELF\x02\x01");
    elf[18] = if cfg!(target_arch = "aarch64") { 62 } else { 183 };
    elf
}

#[test]
fn a_bad_library_is_told_by_check_and_by_health() {
    let repository = Repository::with(&["v1"]);
    let folder = tempfile::tempdir().unwrap();
    let put = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    // A real library of this machine, but of something else.
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    let libc =
        maps.split_whitespace().find(|word| word.contains("/libc.so")).expect("the C library").to_owned();
    for (library, words) in [
        (folder.path().join("none.so").display().to_string(), "does not exist"),
        (put("foreign.so", &foreign_elf()), "is built for"),
        (put("text.so", b"this is no library, only a text of some length"), "not a shared library"),
        (libc, "is not ONNX Runtime"),
    ] {
        let mut device =
            Device::new(Options::default().repository(&repository).set("runtime.library", library.clone()));
        let checked = device.cli(["check"]);
        assert_eq!(checked.code, Some(1), "{checked:?}");
        let told = format!("{}{}", checked.stdout, checked.stderr);
        assert!(told.contains(words) && told.contains(&library), "{words} in {told}");
        device.start();
        device.status();
        let ended = device.cli(["update", SLOT, &release(1)]);
        assert_eq!(ended.code, Some(1), "{ended:?}");
        assert!(ended.stderr.contains(words) && ended.stderr.contains(&library), "{ended:?}");
        let health = device.status().health;
        let told = health.problems.iter().find(|problem| problem.code == ProblemCode::DeploymentFailed);
        assert!(told.is_some_and(|problem| problem.detail.contains(words)), "{health:?}");
        assert!(device.stop().success(), "it goes on without a model, and ends when told");
    }
}

#[test]
fn models_that_cannot_run_are_refused_in_their_trial() {
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let device = Device::serving(Options::new(&broker, &repository), &release(1));
    let data = root().join("tests/data/models");
    let with_model = |folder: &Path, bytes: &[u8]| std::fs::write(folder.join("model.onnx"), bytes).unwrap();
    let truncated = |folder: &Path| {
        let whole = std::fs::read(folder.join("model.onnx")).unwrap();
        with_model(folder, &whole[..whole.len() / 2]);
    };
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let opset = std::fs::read(data.join("newer_opset.onnx")).unwrap();

    type Change<'a> = Box<dyn FnOnce(&Path, &mut serde_json::Value) + 'a>;
    let cases: Vec<(&str, ReasonCode, &str, Change)> = vec![
        ("2.0.1", ReasonCode::LoadFailed, "model.onnx", Box::new(|folder, _| truncated(folder))),
        ("2.0.2", ReasonCode::LoadFailed, "model.onnx", Box::new(|folder, _| with_model(folder, &noise))),
        ("2.0.3", ReasonCode::Unsupported, "opset", Box::new(|folder, _| with_model(folder, &opset))),
        (
            "2.0.4",
            ReasonCode::LoadFailed,
            "picture",
            Box::new(|_, m| m["inputs"][0]["name"] = "picture".into()),
        ),
        (
            "2.0.5",
            ReasonCode::LoadFailed,
            "shape",
            Box::new(|_, m| {
                m["inputs"][0]["shape"] = json!([1, 3, 240, 320]);
            }),
        ),
        (
            "2.0.6",
            ReasonCode::LoadFailed,
            "type",
            Box::new(|_, m| {
                m["inputs"][0]["type"] = "u8".into();
                m["inputs"][0].as_object_mut().unwrap().retain(|key, _| key != "mean" && key != "scale");
            }),
        ),
        ("2.0.7", ReasonCode::LoadFailed, "boxes", Box::new(|_, m| m["decode"]["output"] = "boxes".into())),
        ("2.0.8", ReasonCode::Unsupported, "agent", Box::new(|_, m| m["needs"]["agent"] = ">=99".into())),
        (
            "2.0.9",
            ReasonCode::Unsupported,
            "tensorrt",
            Box::new(|_, m| {
                m["needs"]["providers"] = json!(["tensorrt"]);
            }),
        ),
    ];
    for (version, code, words, change) in cases {
        let release_of = repository.publish_variant("v2", version, change);
        let reason = device.update(&release_of).expect_err(version);
        println!("{version} {reason}");
        assert!(reason.code == code && reason.detail.contains(words), "{version}: {reason}");
        assert_eq!(device.until("a state", |heard| heard.current()), release(1), "{version}");
    }
    // Signed and loadable, but wrong; and one that fails on live frames only.
    let now = jiff::Timestamp::now();
    for (name, number, stage, code) in [
        ("v3", 3, Stage::Refused, ReasonCode::GoldenMismatch),
        ("v4", 4, Stage::RolledBack, ReasonCode::TooManyErrors),
    ] {
        repository.publisher.publish(&crate::support::device::model(name), now, &|_| {}).unwrap();
        let reason = device.update(&release(number)).expect_err(name);
        assert_eq!(reason.code, code, "{reason}");
        device.until("its end", |heard| (heard.stage()? == stage).then_some(()));
        assert_eq!(device.until("a state", |heard| heard.current()), release(1));
    }
    device.until_frames(3);
    let left = std::fs::read_dir(device.path("state/models")).unwrap().count();
    assert_eq!(left, 1, "of what was refused nothing stays");
}

#[test]
fn pictures_that_are_none_are_told_and_passed_over() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let pictures = tempfile::tempdir().unwrap();
    let good = root().join("packaging/models/v1/golden");
    for number in 1..=3 {
        std::fs::copy(good.join(format!("{number}.jpg")), pictures.path().join(format!("b{number}.jpg")))
            .unwrap();
    }
    std::fs::write(pictures.path().join("a-text.jpg"), "not a picture").unwrap();
    std::fs::write(pictures.path().join("c-empty.png"), "").unwrap();
    // Its head is good, its body is not: only who decodes it finds out.
    let mut broken = std::fs::read(good.join("4.jpg")).unwrap();
    broken.truncate(broken.len() / 3);
    std::fs::write(pictures.path().join("d-broken.jpg"), broken).unwrap();
    // Every fourth frame cannot be decoded, which is not the model's fault.
    let options = Options::new(&broker, &repository).set("update.max_error_ratio", 0.9);
    let device = Device::serving(options.pictures(pictures.path()), &release(1));
    device.until_frames(12);
    let log = device.log();
    assert!(log.contains("a-text.jpg") && log.contains("c-empty.png"), "each is named in the log");

    // A folder that is not there: told with its remedy, and taken up when it comes.
    let later = pictures.path().join("later");
    let mut other = Device::new(Options::new(&broker, &repository).pictures(&later));
    other.start();
    let told = wait_until("the missing folder is told", PATIENCE, || {
        let health = other.status().health;
        (health.pipelines[0].state == PipelineState::SourceFailed)
            .then(|| health.problems.into_iter().find(|problem| problem.code == ProblemCode::SourceFailed))
            .flatten()
    });
    assert!(told.detail.contains("later") && told.detail.contains("source.path"), "{}", told.detail);
    std::fs::create_dir(&later).unwrap();
    std::fs::copy(good.join("1.jpg"), later.join("1.jpg")).unwrap();
    other.update(&release(1)).unwrap();
    other.until_frames(3);
}
