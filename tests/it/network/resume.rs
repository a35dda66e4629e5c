//! What came before a kill is not fetched again.

use super::{Bench, release};
use crate::support::device::{Device, PATIENCE, SLOT, release as first};
use crate::support::faulty_web::Act;
use crate::support::wait_until;
use serde_json::json;

#[test]
fn a_download_goes_on_over_kills_without_a_byte_twice() {
    let bench = Bench::new(1);
    let mut device = Device::serving(bench.options().set("repository.stall_timeout", "1h"), &first(1));
    let (blob, size) = bench.blob(0);
    let part = device.path(&format!("state/downloads/{}", blob.trim_start_matches("blobs/")));
    let step = 60_000;
    let times = size / step;
    bench.web.plan(&blob, (0..times).map(|_| Act::Stall(step)).collect(), false);
    drop(device.send("update", json!({ "slot": SLOT, "release": release(0) })));
    for kill in 1..=times {
        wait_until("bytes on the disk", PATIENCE, || {
            (std::fs::metadata(&part).ok()?.len() == kill * step).then_some(())
        });
        device.kill();
        device.forget();
        device.start();
    }
    device.until("the update's end", |heard| (heard.current()? == release(0)).then_some(()));
    device.until_frames(1);
    let asked = bench.web.asked(&blob);
    let from: Vec<u64> = asked.iter().map(|asked| asked.from).collect();
    assert_eq!(from, (0..=times).map(|kill| kill * step).collect::<Vec<_>>(), "{asked:?}");
    assert_eq!(asked.iter().map(|asked| asked.sent).sum::<u64>(), size, "each byte once: {asked:?}");
    println!("{} kills, {} requests, {size} bytes of {size} on the wire", times, asked.len());
}
