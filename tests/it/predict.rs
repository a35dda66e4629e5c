//! From an ONNX file to answers on real photographs, with the real program: `bundle init`, a few edited
//! lines, `predict`.

/// Video files.
mod film;

use crate::support::series_model;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn edgewarden() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edgewarden"));
    if std::env::var_os("EDGEWARDEN_ONNXRUNTIME").is_none() {
        let local = concat!(env!("CARGO_MANIFEST_DIR"), "/.deps/onnxruntime/libonnxruntime.so");
        command.env("EDGEWARDEN_ONNXRUNTIME", local);
    }
    command
}

/// The folder of real data; `None`, said aloud, where it is not there.
fn data(test: &str) -> Option<PathBuf> {
    let data = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../shared/data"));
    if !data.join("ultraface/version-RFB-320.onnx").is_file() {
        println!("skipped {test}: no {}", data.display());
        return None;
    }
    Some(data.to_owned())
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

fn lines(output: &Output) -> Vec<Value> {
    output
        .stdout
        .split(|&byte| byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

fn edit(dir: &Path, change: impl FnOnce(&mut Value)) {
    let path = dir.join("manifest.json");
    let mut manifest = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    std::fs::write(&path, serde_json::to_vec_pretty(&manifest).unwrap()).unwrap();
}

fn iou(a: [f64; 4], b: [f64; 4]) -> f64 {
    let area = |[l, t, r, b]: [f64; 4]| (r - l).max(0.0) * (b - t).max(0.0);
    let both = area([a[0].max(b[0]), a[1].max(b[1]), a[2].min(b[2]), a[3].min(b[3])]);
    both / (area(a) + area(b) - both)
}

fn numbers<const N: usize>(value: &Value) -> [f64; N] {
    std::array::from_fn(|at| value[at].as_f64().unwrap())
}

#[test]
fn ultraface_finds_the_expected_faces() {
    let Some(data) = data("ultraface_finds_the_expected_faces") else { return };
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("faces");
    run(edgewarden().args(["bundle", "init"]).arg(data.join("ultraface/version-RFB-320.onnx")).arg(&bundle));
    edit(&bundle, |manifest| {
        manifest["labels"] = serde_json::json!(["face"]);
        let input = &mut manifest["inputs"][0];
        (input["scale"], input["mean"], input["std"]) =
            (1.into(), [127].as_slice().into(), [128].as_slice().into());
        let keep = &mut manifest["decode"]["keep"];
        (keep["score_threshold"], keep["iou_threshold"]) = (0.7.into(), 0.3.into());
    });
    run(edgewarden().args(["bundle", "check"]).arg(&bundle));

    let expected: Value =
        serde_json::from_slice(&std::fs::read(data.join("ultraface/expected.json")).unwrap()).unwrap();
    let expected = expected.as_object().unwrap();
    let drawn = temp.path().join("drawn");
    let pictures = expected.keys().map(|name| data.join("frames").join(name));
    let output = run(edgewarden().arg("predict").arg(&bundle).args(pictures).arg("--draw").arg(&drawn));
    let answers = lines(&output);
    assert_eq!(answers.len(), expected.len());
    let (mut wanted, mut met, mut overlaps) = (0, 0, Vec::new());
    for (answer, (name, faces)) in answers.iter().zip(expected) {
        assert!(answer["image"].as_str().unwrap().ends_with(name.as_str()));
        let found: Vec<[f64; 4]> =
            answer["detections"].as_array().unwrap().iter().map(|d| numbers(&d["box"])).collect();
        assert!(
            answer["detections"].as_array().unwrap().iter().all(|d| d["label"] == "face" && d["class"] == 0)
        );
        // A face at the threshold may be there or not; the clear ones must be.
        for face in faces.as_array().unwrap().iter().filter(|face| face[4].as_f64().unwrap() > 0.8) {
            wanted += 1;
            let face = numbers(face);
            let overlap = found.iter().map(|found| iou(*found, face)).fold(0.0, f64::max);
            if overlap > 0.5 {
                met += 1;
                overlaps.push(overlap);
            }
        }
        let faces = faces.as_array().unwrap().len();
        assert!(
            found.len().abs_diff(faces) <= 2 + faces / 10,
            "{name}: {} found, {faces} expected",
            found.len()
        );
        assert!(drawn.join(name).with_extension("jpg").is_file());
    }
    let mean = overlaps.iter().sum::<f64>() / overlaps.len() as f64;
    println!("{met} of {wanted} clear faces met, mean IoU {mean:.4}");
    assert!(wanted > 50 && met * 100 >= wanted * 99 && mean > 0.99, "{met} of {wanted}, mean IoU {mean}");

    // The present answers become golden samples, and the sealed bundle still opens and passes.
    run(edgewarden().args(["bundle", "golden"]).arg(&bundle).arg(data.join("frames/f00.jpg")));
    let output = run(edgewarden().args(["bundle", "check", "--json"]).arg(&bundle));
    assert!(lines(&output)[0]["passed"].to_string().contains("1 golden sample "));
}

#[test]
fn mnist_reads_the_five() {
    let Some(data) = data("mnist_reads_the_five") else { return };
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("digits");
    run(edgewarden().args(["bundle", "init"]).arg(data.join("mnist.onnx")).arg(&bundle));
    edit(&bundle, |manifest| {
        manifest["inputs"][0]["scale"] = 1.into();
        manifest["labels"] = (0..10).map(|digit| digit.to_string()).collect::<Vec<_>>().into();
    });
    let output = run(edgewarden().arg("predict").arg(&bundle).arg(data.join("mnist_5.jpg")));
    assert_eq!(lines(&output)[0]["classes"][0]["label"], "5", "{:?}", lines(&output));
}

#[test]
fn bad_pictures_are_told_and_the_good_ones_answered() {
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("means");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/mean_f32.onnx");
    run(edgewarden().args(["bundle", "init", model]).arg(&bundle));
    let good = temp.path().join("good.png");
    image::RgbImage::from_pixel(20, 10, image::Rgb([255, 0, 0])).save(&good).unwrap();
    let text = temp.path().join("text.jpg");
    std::fs::write(&text, "not a picture").unwrap();
    let missing = temp.path().join("missing.jpg");

    let output = edgewarden().arg("predict").arg(&bundle).args([&text, &good, &missing]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let answers = lines(&output);
    assert_eq!(answers.len(), 1);
    assert_eq!(answers[0]["classes"][0]["class"], 0, "red is the first channel");
    let told = String::from_utf8(output.stderr).unwrap();
    let told: Vec<_> = told.lines().collect();
    assert!(told.len() == 2 && told[0].contains("text.jpg") && told[1].contains("missing.jpg"), "{told:?}");

    for (arguments, words) in [
        (vec!["--runtime", "/nonexistent/libonnxruntime.so"], "does not exist"),
        (vec!["--runtime", model], "not a shared library"),
    ] {
        let output = edgewarden().arg("predict").arg(&bundle).arg(&good).args(arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(
            output.status.code() == Some(1) && told.lines().count() == 1 && told.contains(words),
            "{told}"
        );
    }
    let manifest = std::fs::read_to_string(bundle.join("manifest.json")).unwrap();
    std::fs::write(bundle.join("manifest.json"), manifest.replace("\"fit\"", "\"fti\"")).unwrap();
    for arguments in [&["predict"][..], &["bundle", "show"], &["bundle", "check"], &["bundle", "seal"]] {
        let mut command = edgewarden();
        command.args(arguments).arg(&bundle);
        if arguments == ["predict"] {
            command.arg(&good);
        }
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: a typo is no refusal for trust");
        let told = String::from_utf8([output.stdout, output.stderr].concat()).unwrap();
        assert!(told.contains("unknown field `fti`"), "{told}");
    }
    std::fs::write(bundle.join("manifest.json"), manifest).unwrap();
    std::fs::write(bundle.join("model.onnx"), "changed").unwrap();
    let output = edgewarden().arg("predict").arg(&bundle).arg(&good).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "a changed byte is refused for trust");
}

#[test]
fn what_is_no_bundle_and_no_model_is_told() {
    let temp = tempfile::tempdir().unwrap();
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/mean_f32.onnx");
    let missing = temp.path().join("missing");
    let missing = missing.to_str().unwrap();
    let folder = temp.path().to_str().unwrap();
    for (arguments, words) in [
        (vec!["predict", model, "a.jpg"], "bundle init"),
        (vec!["predict", missing, "a.jpg"], "name a bundle's folder"),
        (vec!["bundle", "show", model], "bundle init"),
        (vec!["bundle", "init", missing, "x"], "no such file"),
        (vec!["bundle", "init", folder, "x"], "no such file"),
    ] {
        let output = edgewarden().current_dir(&temp).args(&arguments).output().unwrap();
        let told = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {told}");
        assert!(told.lines().count() == 1 && told.contains(words), "{arguments:?}: {told}");
    }
    assert!(!temp.path().join("x").exists());
}

#[test]
fn a_folder_goes_through_several_engines_and_comes_out_in_order() {
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("means");
    let model = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/models/mean_f32.onnx");
    run(edgewarden().args(["bundle", "init", model]).arg(&bundle));
    let pictures = temp.path().join("pictures");
    std::fs::create_dir(&pictures).unwrap();
    // The strongest colour tells which picture it was.
    for at in 0..24_usize {
        let mut colour = [10, 10, 10];
        colour[at % 3] = 250;
        let picture = image::RgbImage::from_pixel(40, 30, image::Rgb(colour));
        picture.save(pictures.join(format!("{at:02}.png"))).unwrap();
    }
    std::fs::write(pictures.join("notes.txt"), "no picture").unwrap();
    let csv = temp.path().join("answers.csv");
    let by_folder =
        run(edgewarden().arg("predict").arg(&bundle).arg(&pictures).args(["--jobs", "3", "--csv"]).arg(&csv));
    let answers = lines(&by_folder);
    assert_eq!(answers.len(), 24);
    for (at, answer) in answers.iter().enumerate() {
        assert!(answer["image"].as_str().unwrap().ends_with(&format!("{at:02}.png")), "{answer}");
        assert_eq!(answer["classes"][0]["class"], at % 3);
    }
    let table = std::fs::read_to_string(&csv).unwrap();
    assert_eq!(table.lines().count(), 1 + 24 * 3, "a head, and three classes for each picture");
    assert!(table.lines().nth(1).unwrap().contains("00.png,class,"), "{table}");

    // The same by a pattern, with one engine.
    let pattern = pictures.join("*.png");
    let by_pattern = run(edgewarden().arg("predict").arg(&bundle).arg(pattern).args(["--jobs", "1"]));
    let bare = |answers: Vec<Value>| {
        answers
            .into_iter()
            .map(|answer| (answer["image"].clone(), answer["classes"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(bare(answers), bare(lines(&by_pattern)));

    // Those that fail are named, the others answered, and the exit status tells.
    for at in [3, 17] {
        std::fs::write(pictures.join(format!("{at:02}.png")), "broken").unwrap();
    }
    let output =
        edgewarden().arg("predict").arg(&bundle).arg(&pictures).args(["--jobs", "4"]).output().unwrap();
    assert_eq!((output.status.code(), lines(&output).len()), (Some(1), 22));
    let told = String::from_utf8(output.stderr).unwrap();
    let told: Vec<_> = told.lines().collect();
    assert!(told[0].contains("03.png") && told[1].contains("17.png"), "{told:?}");
    assert_eq!(told[2], "edgewarden: 2 of 24 pictures got no answer");
}

#[test]
fn a_series_model_answers_csv_files_and_keeps_them_as_golden_samples() {
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("imu");
    series_model::bundle(&bundle, "series_mean", series_model::means);
    let rows: String = (0..16).map(|n| format!("{n},0.5,\n")).collect();
    let csv = temp.path().join("window.csv");
    std::fs::write(&csv, format!("x,y,n\n{rows}")).unwrap();
    let output = run(edgewarden().arg("predict").arg(&bundle).arg(&csv));
    let answers = lines(&output);
    let values = &answers[0]["values"];
    let values_of_csv = values;
    assert_eq!((&values[0]["name"], &values[0]["unit"]), (&"x".into(), &"m/s²".into()));
    assert_eq!(
        [&values[0], &values[1], &values[2]].map(|one| one["value"].as_f64().unwrap()),
        [7.5, 5.0, 0.0]
    );

    run(edgewarden().args(["bundle", "golden"]).arg(&bundle).arg(&csv));
    let shown = String::from_utf8(run(edgewarden().args(["bundle", "show"]).arg(&bundle)).stdout).unwrap();
    assert!(shown.contains("series   \"x\" [1, 3, 16] f32 ncl, gaps: zero"), "{shown}");
    assert!(shown.contains("values (x, y, n) of y"), "{shown}");
    let checked = String::from_utf8(run(edgewarden().args(["bundle", "check"]).arg(&bundle)).stdout).unwrap();
    assert!(checked.contains("a window of zeros gives x 0 m/s², y 0 m/s², n 0"), "{checked}");
    assert!(checked.contains("1 golden sample answered as expected"), "{checked}");

    std::fs::write(bundle.join("golden/01.csv"), rows.replace("0.5", "0.6")).unwrap();
    run(edgewarden().args(["bundle", "seal"]).arg(&bundle));
    let off = edgewarden().args(["bundle", "check"]).arg(&bundle).output().unwrap();
    let off = String::from_utf8(off.stdout).unwrap();
    assert!(off.contains("golden input golden/01.csv: values: y is 6"), "{off}");

    // The same window as NumPy saves it, and the table of it.
    let values = (0..16).map(|n| n as f32).chain([0.5; 16]).chain([f32::NAN; 16]);
    let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 16), }\n";
    let mut npy =
        [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes()].concat();
    npy.extend(values.flat_map(f32::to_le_bytes));
    let (array, table) = (temp.path().join("window.npy"), temp.path().join("answers.csv"));
    std::fs::write(&array, npy).unwrap();
    let output = run(edgewarden().arg("predict").arg(&bundle).arg(&array).arg("--csv").arg(&table));
    assert_eq!(&lines(&output)[0]["values"], values_of_csv);
    let table = std::fs::read_to_string(&table).unwrap();
    assert!(table.contains("window.npy,value,x,,,,,,,7.5,m/s²,,\r\n"), "{table}");
    run(edgewarden().args(["bundle", "golden"]).arg(&bundle).arg(&array));
    let checked = String::from_utf8(run(edgewarden().args(["bundle", "check"]).arg(&bundle)).stdout).unwrap();
    assert!(checked.contains("1 golden sample answered as expected"), "{checked}");

    let picture = temp.path().join("picture.csv");
    std::fs::write(&picture, "1,2\n").unwrap();
    let refused = edgewarden().arg("predict").arg(&bundle).arg(&picture).output().unwrap();
    let told = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && told.contains("line 1 has 2 columns, the model takes 3"), "{told}");
}

#[test]
fn an_autoencoder_is_drafted_as_an_anomaly_detector() {
    let temp = tempfile::tempdir().unwrap();
    let bundle = temp.path().join("clip");
    series_model::bundle(&bundle, "series_clip", |manifest| {
        assert_eq!(manifest["decode"]["kind"], "anomaly");
        assert_eq!(manifest["series"]["layout"], "ncl");
        manifest["decode"]["metric"] = "mae".into();
    });
    let csv = temp.path().join("window.csv");
    std::fs::write(&csv, "0.5,3,-6\n".repeat(16)).unwrap();
    let output = run(edgewarden().arg("predict").arg(&bundle).arg(&csv));
    let anomaly = &lines(&output)[0]["anomaly"];
    assert_eq!(anomaly["is_anomaly"], true);
    let channels = anomaly["channels"].as_array().unwrap();
    assert_eq!(
        channels.iter().map(|one| one["value"].as_f64().unwrap()).collect::<Vec<_>>(),
        [0.0, 2.0, 5.0]
    );
    assert!((anomaly["score"].as_f64().unwrap() - 7.0 / 3.0).abs() < 1e-5);
}
