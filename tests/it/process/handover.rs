//! A swap between two real inference processes on one channel: every frame is answered once or counted.

use super::*;

/// The agent's side of a swap, as small as it can be.
struct Swap {
    ledger: Ledger,
    answered: BTreeSet<u64>,
}

/// A model that serves, and the numbers that are its own.
struct Serving {
    child: InferChild,
    span: Span,
}

impl Swap {
    /// Starts a model after the newest frame; the one before it hands over where the new one begins.
    async fn start(&mut self, mut child: InferChild, old: Option<&mut Serving>) -> Serving {
        child.send(ToInfer::Start { from: self.ledger.newest() + 1 }).unwrap();
        let from = next(&mut child, |message| match message {
            FromInfer::Started { from } => Some(from),
            other => panic!("{other:?}"),
        })
        .await;
        assert!(from > self.ledger.newest());
        if let Some(old) = old {
            self.ledger.limit(&mut old.span, from);
            old.child.send(ToInfer::Stop { until: from }).unwrap();
        }
        Serving { child, span: self.ledger.open(from).0 }
    }

    fn hear(&mut self, span: &mut Span, event: Option<Event<FromInfer>>) {
        match event.unwrap() {
            Event::Message(FromInfer::Frame { seq, skipped, result }) => {
                assert_eq!(result.unwrap().seq, seq);
                if self.ledger.frame(span, seq, skipped, true) {
                    assert!(self.answered.insert(seq), "frame {seq} counts once");
                }
            }
            Event::Message(FromInfer::Stopped { .. }) => self.ledger.stopped(span),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn two_models_hand_over_on_one_channel_without_losing_a_frame() {
    hand_over(Some(false));
}

#[test]
fn models_that_prepare_frames_ahead_hand_over_without_losing_one() {
    hand_over(Some(true));
}

fn hand_over(overlap: Option<bool>) {
    if library().is_none() {
        return;
    }
    let mut place = Place::new();
    place.input.overlap = overlap;
    let dir = place.folder("bundle");
    let digest = colour_bundle(&dir);
    block_on(async {
        let mut swap = Swap { ledger: Ledger::new(), answered: BTreeSet::new() };
        let mut old = swap.start(loaded(&place, &dir, digest).await, None).await;
        let mut spare = loaded(&place, &dir, digest).await;
        let configure = place.synthetic(250.0, 1);
        let mut camera = CaptureChild::start_capture(exe(), "belt", configure).await.unwrap();
        // There, back (the old one is the standby of a rollback), and there again.
        for round in 1..=5 {
            let mut stalled = false;
            while swap.answered.len() < round * 40 {
                tokio::select! {
                    event = old.child.recv() => swap.hear(&mut old.span, event),
                    seq = published(&mut camera) => swap.ledger.published(seq),
                }
                if !stalled && swap.answered.len() >= round * 40 - 20 {
                    // A model that stalls for a while skips frames; they count.
                    signal(old.child.pid(), Signal::STOP);
                    for _ in 0..5 {
                        swap.ledger.published(published(&mut camera).await);
                    }
                    signal(old.child.pid(), Signal::CONT);
                    stalled = true;
                }
            }
            let mut new = swap.start(spare, Some(&mut old)).await;
            while !old.span.is_closed() {
                tokio::select! {
                    event = old.child.recv() => swap.hear(&mut old.span, event),
                    event = new.child.recv() => swap.hear(&mut new.span, event),
                    seq = published(&mut camera) => swap.ledger.published(seq),
                }
            }
            spare = std::mem::replace(&mut old, new).child;
        }
        // The end: the answer to the snapshot comes after the last number was told.
        camera.send(ToCapture::Pause { paused: true }).unwrap();
        camera.send(ToCapture::Snapshot { id: 1, max_edge: 0, boxes: None }).unwrap();
        next(&mut camera, |message| match message {
            FromCapture::Published { seq } => {
                swap.ledger.published(seq);
                None
            }
            FromCapture::Snapshot { .. } => Some(()),
            other => panic!("{other:?}"),
        })
        .await;
        let end = swap.ledger.newest() + 1;
        old.child.send(ToInfer::Stop { until: end }).unwrap();
        swap.ledger.limit(&mut old.span, end);
        while !old.span.is_closed() {
            let event = old.child.recv().await;
            swap.hear(&mut old.span, event);
        }
        let totals = swap.ledger.totals();
        assert!(totals.busy > 0, "the stalls were seen: {totals:?}");
        assert_eq!((totals.unserved, totals.failed), (0, 0), "{totals:?}");
        assert_eq!(totals.accounted(), totals.published, "every number is answered or counted: {totals:?}");
        assert_eq!(totals.answered, swap.answered.len() as u64);
    });
}
