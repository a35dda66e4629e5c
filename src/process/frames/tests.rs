//! The channel with both its ends in one process, and what a hostile other end may write.

use super::*;

/// A channel of its own that leaves nothing behind.
struct Own(tempfile::TempDir, FrameChannel);

impl Own {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        // The prefix is part of names in /dev/shm, which all tests share.
        let unique = dir.path().file_name().unwrap().to_str().unwrap().trim_start_matches('.');
        let (prefix, root) = (format!("ewt{unique}_"), dir.path().join("frames"));
        let pipeline = "belt".parse().unwrap();
        Self(dir, FrameChannel { root, prefix, pipeline, readers: 1, every: false })
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        let _ = remove(&self.1);
    }
}

fn meta(seq: u64) -> FrameMeta {
    FrameMeta {
        seq,
        captured_unix_ns: -1,
        captured_mono_ns: 7,
        width: 3,
        height: 1,
        format: FrameFormat::Jpeg,
    }
}

fn in_shm(channel: &FrameChannel) -> usize {
    std::fs::read_dir("/dev/shm")
        .unwrap()
        .filter(|e| e.as_ref().unwrap().file_name().to_string_lossy().starts_with(&channel.prefix))
        .count()
}

#[test]
fn the_newest_frame_wins_and_a_held_one_stays_as_it_is() {
    let own = Own::new();
    let channel = own.1.clone();
    let publisher = FramePublisher::create(&channel).unwrap();
    let (fast, slow) = (FrameSubscriber::open(&channel).unwrap(), FrameSubscriber::open(&channel).unwrap());
    publisher.publish(&meta(1), b"one").unwrap();
    let held = slow.take().unwrap().unwrap();
    for seq in 2..=50 {
        let text = format!("frame {seq}");
        publisher.publish(&meta(seq), text.as_bytes()).unwrap();
        let lease = fast.take().unwrap().unwrap();
        assert_eq!((lease.seq(), lease.view().bytes), (seq, text.as_bytes()));
    }
    assert_eq!(held.view().bytes, b"one");
    assert_eq!(held.view().meta, meta(1));
    drop(held);
    assert_eq!(slow.take().unwrap().unwrap().seq(), 50);
    assert!(slow.take().unwrap().is_none());
    assert!(remove(&channel).unwrap_err().to_string().contains("processes still use it"));
    drop((publisher, fast, slow));
    remove(&channel).unwrap();
    assert_eq!(in_shm(&channel), 0, "everything is given back");
}

#[test]
fn frames_may_grow_up_to_the_limit_and_no_further() {
    let own = Own::new();
    let channel = own.1.clone();
    let publisher = FramePublisher::create(&channel).unwrap();
    let subscriber = FrameSubscriber::open(&channel).unwrap();
    for (seq, len) in [(1, 10), (2, FIRST_ROOM + 1), (3, 5 << 20), (4, MAX_FRAME), (5, 3)] {
        let bytes = vec![seq as u8; len];
        publisher.publish(&meta(seq), &bytes).unwrap();
        assert!(subscriber.take().unwrap().unwrap().view().bytes == bytes, "frame of {len} bytes");
    }
    let error = publisher.publish(&meta(6), &vec![0; MAX_FRAME + 1]).unwrap_err();
    assert!(error.to_string().contains("use a smaller picture"), "{error}");
    let raw = FrameMeta { format: FrameFormat::Rgb8, ..meta(7) };
    let error = publisher.publish(&raw, b"12345678").unwrap_err();
    assert!(error.to_string().contains("3x1 in Rgb8 takes 9 bytes, not 8"), "{error}");
}

#[test]
fn a_sleeping_subscriber_wakes_for_a_frame_and_either_end_may_be_replaced() {
    let own = Own::new();
    let channel = own.1.clone();
    let subscriber = FrameSubscriber::open(&channel).unwrap();
    assert!(subscriber.newest(Duration::from_millis(1)).unwrap().is_none());
    for round in 0..3 {
        let sender = channel.clone();
        let (seen, until_seen) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let publisher = FramePublisher::create(&sender).unwrap();
            publisher.publish(&meta(round * 10 + 1), b"x").unwrap();
            until_seen.recv().unwrap();
        });
        let lease = subscriber.newest(Duration::from_secs(30)).unwrap().expect("a frame came");
        assert_eq!(lease.seq(), round * 10 + 1);
        seen.send(()).unwrap();
        thread.join().unwrap();
    }
    let publisher = FramePublisher::create(&channel).unwrap();
    for round in 100..103 {
        let late = FrameSubscriber::open(&channel).unwrap();
        publisher.publish(&meta(round), b"y").unwrap();
        assert_eq!(late.newest(Duration::from_secs(30)).unwrap().unwrap().seq(), round);
    }
}

#[test]
fn a_subscriber_that_never_looks_stops_nobody() {
    let own = Own::new();
    let channel = own.1.clone();
    let publisher = FramePublisher::create(&channel).unwrap();
    let hung = FrameSubscriber::open(&channel).unwrap();
    let other = FrameSubscriber::open(&channel).unwrap();
    for seq in 1..=2000 {
        publisher.publish(&meta(seq), b"z").unwrap();
        assert_eq!(other.newest(Duration::from_secs(30)).unwrap().unwrap().seq(), seq);
    }
    assert_eq!(hung.newest(Duration::from_secs(30)).unwrap().unwrap().seq(), 2000);
    // What piled up as wake-ups is gone after a few looks: it sleeps again.
    assert!(hung.newest(Duration::from_millis(20)).unwrap().is_none());
}

#[test]
fn as_many_pipelines_as_the_configuration_allows_read_one_channel() {
    let mut own = Own::new();
    own.1.readers = MAX_READERS;
    let publisher = FramePublisher::create(&own.1).unwrap();
    // A model and a candidate each.
    let all: Vec<_> = (0..2 * MAX_READERS).map(|_| FrameSubscriber::open(&own.1).unwrap()).collect();
    publisher.publish(&meta(1), b"frame").unwrap();
    assert!(all.iter().all(|one| one.take().unwrap().unwrap().view().bytes == b"frame"));
}

#[test]
fn a_path_that_no_socket_can_have_is_refused_with_the_remedy() {
    let own = Own::new();
    let mut channel = own.1.clone();
    channel.root = own.0.path().join("x".repeat(60));
    let error = FramePublisher::create(&channel).err().unwrap();
    assert!(error.to_string().contains("set paths.runtime to a shorter one"), "{error}");
}
