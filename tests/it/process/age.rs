//! No model is run on a frame that is too old.

use super::*;
use edgewarden::domain::FrameMeta;
use edgewarden::domain::ledger::Skip;
use edgewarden::sys::monotonic;

#[test]
fn no_model_is_run_on_a_frame_that_is_too_old() {
    if library().is_none() {
        return;
    }
    let place = Place::new();
    let dir = place.folder("bundle");
    let mut configure = place.model(&dir, colour_bundle(&dir));
    if let ToInfer::Configure { admission, .. } = &mut configure {
        admission.max_age_ms = Some(5000);
    }
    let publisher = frames::FramePublisher::create(&place.channel).unwrap();
    let send = |seq, age: Duration| {
        let captured_mono_ns = monotonic::now_ns() - age.as_nanos() as u64;
        let (captured_unix_ns, format) = (0, FrameFormat::Jpeg);
        let meta = FrameMeta { seq, captured_unix_ns, captured_mono_ns, width: 32, height: 24, format };
        publisher.publish(&meta, &jpeg([0, 10, 240])).unwrap();
    };
    block_on(async {
        let mut model = InferChild::start_infer(exe(), "colour", configure, Priority::Normal).await.unwrap();
        next(&mut model, |message| matches!(message, FromInfer::Loaded { .. }).then_some(())).await;
        model.send(ToInfer::Start { from: 1 }).unwrap();
        next(&mut model, |message| matches!(message, FromInfer::Started { .. }).then_some(())).await;
        send(3, Duration::from_secs(6));
        let said = next(&mut model, Some).await;
        assert_eq!(said, FromInfer::Passed { seq: 3, skipped: 2, why: Skip::Stale });
        send(4, Duration::ZERO);
        let said = next(&mut model, Some).await;
        assert!(matches!(said, FromInfer::Frame { seq: 4, skipped: 0, result: Ok(_) }), "{said:?}");
    });
}
