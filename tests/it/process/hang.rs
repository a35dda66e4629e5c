//! A model that never comes to an end does not keep its child.

use super::*;
use crate::support::colour_model::endless_bundle;
use crate::support::wait_until;
use edgewarden::domain::FrameMeta;
use edgewarden::sys::monotonic;

/// Processor time of a process, in the kernel's ticks.
fn ticks(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // The name in brackets may hold spaces; user time is the 14th field, the 12th after it.
    stat.rsplit_once(") ").unwrap().1.split(' ').nth(11).unwrap().parse().unwrap()
}

#[test]
fn a_child_whose_model_hangs_ends_with_its_socket() {
    if library().is_none() {
        return;
    }
    for overlap in [true, false] {
        let mut place = Place::new();
        place.input.overlap = Some(overlap);
        let dir = place.folder("bundle");
        let configure = place.model(&dir, endless_bundle(&dir));
        let publisher = frames::FramePublisher::create(&place.channel).unwrap();
        // A child of this thread, which lives on: only the socket tells that its agent is gone.
        let (mut child, socket) = bare("infer");
        let mut writer = Writer::new(&socket);
        let mut reader = Reader::<_, FromInfer>::new(&socket);
        writer.write(&configure).unwrap();
        let said = reader.read().unwrap();
        assert!(matches!(said, Some(FromInfer::Loaded { .. })), "{said:?}");
        writer.write(&ToInfer::Start { from: 1 }).unwrap();
        assert!(matches!(reader.read().unwrap(), Some(FromInfer::Started { .. })));
        let before = ticks(child.id());
        let meta = FrameMeta {
            seq: 1,
            captured_unix_ns: 0,
            captured_mono_ns: monotonic::now_ns(),
            width: 32,
            height: 24,
            format: FrameFormat::Jpeg,
        };
        publisher.publish(&meta, &jpeg([10, 230, 20])).unwrap();
        wait_until("the model at work", GUARD, || (ticks(child.id()) > before + 50).then_some(()));
        assert!(child.try_wait().unwrap().is_none());
        socket.shutdown(std::net::Shutdown::Both).unwrap();
        let start = std::time::Instant::now();
        let ended = loop {
            if let Some(ended) = child.try_wait().unwrap() {
                break ended;
            }
            if start.elapsed() > GUARD {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("overlap {overlap}: it stays");
            }
            std::thread::sleep(Duration::from_millis(50));
        };
        assert!(!ended.success(), "overlap {overlap}: it was ended in the middle: {ended}");
    }
}
