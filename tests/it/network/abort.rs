//! The order of events decides here, not the time they take: the server gives its answer only after the abort
//! was answered, or would have to be waited for longer than the test has patience.

use super::{Bench, release};
use crate::support::device::{Device, PATIENCE, SLOT, release as first};
use crate::support::faulty_web::Act;
use crate::support::wait_until;
use edgewarden::domain::ReasonCode;
use serde_json::json;

#[test]
fn an_abort_is_answered_while_the_network_still_hangs() {
    let bench = Bench::new(1);
    let options = bench.options().set("repository.stall_timeout", "1h").set("repository.retries", 1000);
    let device = Device::serving(options, &first(1));
    let (blob, _) = bench.blob(0);
    let busy = Act::Say("429 Too Many Requests\r\nRetry-After: 100");
    let failing = Act::Say("500 Internal Server Error");
    for (what, part, act, requests) in [
        ("metadata that does not come", "timestamp.json", Act::Silent, 1),
        ("metadata that stalls", "timestamp.json", Act::Stall(10), 1),
        ("a manifest that stalls", ".manifest.json", Act::Stall(10), 1),
        ("a blob that does not come", &blob, Act::Silent, 1),
        ("a blob that stalls", &blob, Act::Stall(100_000), 1),
        ("a blob that drips", &blob, Act::Drip, 1),
        ("Retry-After at metadata", "timestamp.json", busy.clone(), 1),
        ("Retry-After at a blob", &blob, busy, 1),
        ("the wait between tries at metadata", "timestamp.json", failing.clone(), 4),
        ("the wait between tries at a blob", &blob, failing, 4),
    ] {
        bench.web.plan(part, vec![act.clone()], true);
        let update = device.send("update", json!({ "slot": SLOT, "release": release(0) }));
        wait_until(what, PATIENCE, || (bench.web.asked(part).len() >= requests).then_some(()));
        if act == Act::Stall(100_000) {
            // What the device has of the file by now is what it must not ask for again.
            let kept = device.path("state/downloads").join(blob.trim_start_matches("blobs/"));
            wait_until("bytes that came", PATIENCE, || {
                kept.metadata().is_ok_and(|meta| meta.len() > 0).then_some(())
            });
        }
        let aborted =
            device.command("abort", json!({ "slot": SLOT })).unwrap_or_else(|why| panic!("{what}: {why}"));
        assert_eq!(aborted["release"], first(1).as_str(), "{what}");
        assert_eq!(update.finish().unwrap_err().code, ReasonCode::Aborted, "{what}");
        device.until_frames(1);
        assert_eq!(device.until("a state", |heard| heard.current()), first(1), "{what}");
        bench.web.release();
    }
    // What came before the aborts is of use.
    bench.web.plan("-", Vec::new(), false);
    device.update(&release(0)).unwrap();
    assert!(bench.web.asked(&blob).iter().all(|asked| asked.from > 0), "{:?}", bench.web.asked(&blob));
}
