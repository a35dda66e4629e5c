//! A camera read by a program, through the whole daemon: it stalls, breaks, and comes back, and the
//! agent lives on.

use crate::support::device::{Device, Options, Repository, release};
use crate::support::mosquitto::Mosquitto;
use crate::support::stream::{running, wait_gone};
use crate::support::{HANG, wait_until};
use edgewarden::domain::ReasonCode;

#[test]
fn a_program_that_stalls_or_breaks_is_told_and_comes_back_with_the_agent_alive() {
    let broker = Mosquitto::start();
    let repository = Repository::with(&["v1"]);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("a.jpg"), crate::support::colour_model::jpeg([10, 200, 10])).unwrap();
    let script = "cd \"$0\"; if [ -e broken ]; then echo no camera 73001 >&2; exit 1; fi; while [ ! -e silent ]; \
                  do cat a.jpg; sleep 0.05; done; sleep 73001 | cat";
    let options =
        Options::new(&broker, &repository).script(script, folder.path()).set("pipeline.stall_timeout", "3s");
    let device = Device::serving(options, &release(1));
    let agent = device.pid();
    device.until_frames(5);

    std::fs::write(at("silent"), "").unwrap();
    let stalled = wait_until("a stall", HANG, || running("sleep 73001").first().copied());
    device.until("word of the stall", |heard| {
        let health = heard.health.last()?;
        let told = health.pipelines[0].last_error.as_ref()?;
        (told.code == ReasonCode::ChildHung).then_some(())
    });
    wait_until("the end of what stalled", HANG, || {
        (!running("sleep 73001").contains(&stalled)).then_some(())
    });
    std::fs::write(at("broken"), "").unwrap();
    device.until("word of the breakage", |heard| {
        let told = heard.health.last()?.pipelines[0].last_error.clone()?;
        told.detail.contains("sh ended with status 1: no camera 73001").then_some(())
    });
    wait_gone("sleep 73001");
    std::fs::remove_file(at("silent")).unwrap();
    std::fs::remove_file(at("broken")).unwrap();
    let last = device.heard.lock().unwrap().frames.last().unwrap().seq;
    device.until("newer frames", |heard| (heard.frames.last()?.seq > last + 3).then_some(()));
    assert_eq!(device.pid(), agent);
    drop(device);
    wait_until("the end of the program", HANG, || {
        running(folder.path().to_str().unwrap()).is_empty().then_some(())
    });
}
