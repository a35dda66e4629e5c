//! A bundle of more than 4 GiB, whose sizes and ranges fit in no 32 bits.

use crate::support::device::{Device, Options, Repository, SLOT, model, release, variant};
use crate::support::faulty_web::FaultyWeb;
use crate::support::mosquitto::Mosquitto;
use serde_json::Value;
use std::fs::File;

/// Bytes of its largest file.
const SIZE: u64 = (4 << 30) + (1 << 20);
/// How much of it is on the device already.
const BEGUN: u64 = (4 << 30) - (1 << 20);

/// Hashing and copying so much takes long: it runs where `EDGEWARDEN_LARGE` is set.
#[test]
fn a_bundle_of_more_than_four_gibibytes_goes_its_whole_way() {
    if std::env::var_os("EDGEWARDEN_LARGE").is_none() {
        println!(
            "skipped a_bundle_of_more_than_four_gibibytes_goes_its_whole_way: set EDGEWARDEN_LARGE=1; it takes 9 GiB \
             of disk and some minutes"
        );
        return;
    }
    let broker = Mosquitto::start();
    let mut repository = Repository::with(&["v1"]);
    let folder = repository.dir.path().join("large");
    variant(&model("v2"), &folder, "2.0.0", |folder, _| {
        File::create(folder.join("weights.bin")).unwrap().set_len(SIZE).unwrap();
    });
    repository.publisher.publish(&folder, jiff::Timestamp::now(), &|_| {}).expect("publish it");
    let manifest: Value =
        serde_json::from_slice(&std::fs::read(folder.join("manifest.json")).unwrap()).unwrap();
    let files = manifest["files"].as_array().unwrap();
    let file = files.iter().find(|file| file["path"] == "weights.bin").unwrap();
    assert_eq!(file["size"].as_u64(), Some(SIZE));
    let digest = file["sha256"].as_str().unwrap();

    let web = FaultyWeb::start(&repository.folder());
    let options = Options::new(&broker, &repository)
        .set("repository.url", web.url())
        .set("repository.stall_timeout", "1h");
    let mut device = Device::serving(options, &release(1));
    // What is too large for the device is refused before a byte is fetched.
    let reason = device.update(&release(2)).unwrap_err();
    assert!(reason.detail.contains("update.max_bundle allows"), "{reason}");
    assert!(web.asked(digest).is_empty());

    device.stop();
    device.configure(|options| options.set("update.max_bundle", "8GiB"));
    // Most of it came already, as holes.
    let downloads = device.path("state/downloads");
    File::create(downloads.join(digest)).unwrap().set_len(BEGUN).unwrap();
    device.start();
    // Until it answers.
    device.status();
    let ended = device.cli(["update", SLOT, &release(2)]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let asked = web.asked(digest);
    let ranges: Vec<(u64, u64)> = asked.iter().map(|asked| (asked.from, asked.sent)).collect();
    assert_eq!(ranges, [(BEGUN, SIZE - BEGUN)], "only what was missing, from beyond 32 bits");
    let shown = device.status().slots[0].current.clone().unwrap();
    assert_eq!(shown.release.to_string(), release(2));
    let placed = device.path(&format!("state/models/{}/weights.bin", shown.digest));
    assert_eq!(std::fs::metadata(placed).unwrap().len(), SIZE);
    device.until_frames(3);
}
