//! Pairs, agreement, costs, and each verdict.

use super::*;
use crate::domain::result::{Detection, RawTensor};

fn plan(frames: u64) -> Plan {
    Plan {
        frames,
        max_time: Duration::from_secs(60),
        min_agreement: 0.8,
        max_slowdown: 2.0,
        slow_floor_ms: 1.0,
        max_memory: 100 << 20,
        max_error_ratio: 0.1,
    }
}

fn boxes(all: &[(&str, f32)]) -> Output {
    let detection = |&(label, left): &(&str, f32)| Detection {
        label: label.to_owned(),
        class: 0,
        score: 0.9,
        bbox: [left, 0.0, left + 100.0, 100.0],
    };
    Output { detections: all.iter().map(detection).collect(), ..Output::default() }
}

fn class(label: &str) -> Output {
    let best = Classification { label: label.to_owned(), class: 0, score: 0.9 };
    Output { classes: vec![best], ..Output::default() }
}

fn values(values: &[f32]) -> Output {
    let raw = RawTensor { name: "a".into(), shape: vec![values.len() as i64], values: values.to_vec() };
    Output { tensors: vec![raw], ..Output::default() }
}

/// Both answer frames from 1 on, each pair as given.
fn run(plan: Plan, pairs: &[(Output, Output)], ms: (f32, f32)) -> Shadow {
    let mut shadow = Shadow::new(plan);
    for (seq, (current, candidate)) in (1..).zip(pairs) {
        shadow.answered(Side::Current, seq, current, ms.0);
        shadow.answered(Side::Candidate, seq, candidate, ms.1);
    }
    shadow
}

fn code(shadow: &Shadow) -> Option<ReasonCode> {
    match shadow.verdict() {
        Verdict::Failed(reason) => Some(reason.code),
        Verdict::Watching | Verdict::Passed => None,
    }
}

#[test]
fn boxes_agree_by_label_and_place() {
    let one = boxes(&[("cup", 0.0), ("cup", 300.0)]);
    for (other, same, of) in [
        (one.clone(), 2, 2),
        (boxes(&[("cup", 310.0), ("cup", 5.0)]), 2, 2),
        (boxes(&[("cup", 0.0)]), 1, 2),
        (boxes(&[("cup", 0.0), ("jar", 300.0)]), 1, 2),
        (boxes(&[("cup", 0.0), ("cup", 300.0), ("cup", 600.0)]), 2, 3),
        (boxes(&[("cup", 60.0)]), 0, 2),
        (boxes(&[]), 0, 2),
    ] {
        let report = run(plan(1), &[(one.clone(), other)], (1.0, 1.0)).report();
        assert_eq!(report.boxes, Some([of, same]));
        assert_eq!(report.agreement, same as f32 / of as f32);
    }
    // One box cannot be the counterpart of two.
    let close = boxes(&[("cup", 0.0), ("cup", 10.0)]);
    let report = run(plan(1), &[(close, boxes(&[("cup", 5.0)]))], (1.0, 1.0)).report();
    assert_eq!(report.boxes, Some([2, 1]));
}

#[test]
fn frames_without_anything_say_nothing_about_agreement() {
    let pairs = [(boxes(&[]), boxes(&[])), (boxes(&[("cup", 0.0)]), boxes(&[("jar", 0.0)]))];
    let report = run(plan(2), &pairs, (1.0, 1.0)).report();
    assert_eq!((report.frames, report.agreement, report.boxes), (2, 0.0, Some([1, 0])));
    let report = run(plan(1), &pairs[..1], (1.0, 1.0)).report();
    assert_eq!((report.agreement, report.boxes, report.top1, report.value_distance), (1.0, None, None, None));
}

#[test]
fn the_best_class_and_the_values_are_compared() {
    let pairs = [(class("a"), class("a")), (class("a"), class("b"))];
    let report = run(plan(2), &pairs, (1.0, 1.0)).report();
    assert_eq!((report.top1, report.agreement), (Some([2, 1]), 0.5));
    let report = run(plan(1), &[(values(&[1.0, -3.0]), values(&[1.0, -2.0]))], (1.0, 1.0)).report();
    assert_eq!((report.value_distance, report.agreement), (Some(0.25), 0.75));
    let report = run(plan(1), &[(values(&[1.0, -3.0]), values(&[1.0]))], (1.0, 1.0)).report();
    assert_eq!((report.value_distance, report.agreement), (Some(1.0), 0.0));
    let odd = run(plan(1), &[(values(&[1.0]), values(&[f32::NAN]))], (1.0, 1.0));
    assert_eq!(code(&odd), Some(ReasonCode::Disagrees), "no number agrees with nothing: {:?}", odd.report());
}

#[test]
fn answers_meet_whichever_comes_first_and_what_finds_none_does_not_pile_up() {
    let mut shadow = Shadow::new(plan(3));
    let one = boxes(&[("cup", 0.0)]);
    for seq in 1..=1000 {
        shadow.answered(Side::Current, seq, &one, 1.0);
    }
    assert_eq!(shadow.current.held.len(), MAX_HELD);
    shadow.answered(Side::Candidate, 5, &one, 1.0);
    assert_eq!(shadow.report().frames, 0, "its partner is gone");
    shadow.answered(Side::Candidate, 990, &one, 1.0);
    shadow.answered(Side::Candidate, 1001, &one, 1.0);
    shadow.answered(Side::Current, 1001, &one, 1.0);
    assert_eq!(shadow.report().frames, 2);
    assert!(shadow.current.held.iter().all(|(seq, _)| *seq > 990));

    let large = values(&vec![1.0; MAX_VALUES / 2]);
    for seq in 2000..2010 {
        shadow.answered(Side::Current, seq, &large, 1.0);
    }
    assert_eq!(shadow.current.held.len(), 2, "large answers are bounded by their size");
}

#[test]
fn it_passes_once_enough_frames_agree() {
    let same = (boxes(&[("cup", 0.0)]), boxes(&[("cup", 3.0)]));
    let shadow = run(plan(5), &vec![same.clone(); 4], (10.0, 12.0));
    assert_eq!(shadow.verdict(), Verdict::Watching);
    let shadow = run(plan(5), &vec![same.clone(); 5], (10.0, 12.0));
    assert_eq!(shadow.verdict(), Verdict::Passed);
    let slow = run(plan(5), &vec![same.clone(); 5], (10.0, 21.0));
    assert_eq!(code(&slow), Some(ReasonCode::TooSlow));
    let floor = run(Plan { slow_floor_ms: 30.0, ..plan(5) }, &vec![same; 5], (10.0, 21.0));
    assert_eq!(floor.verdict(), Verdict::Passed);
    let other = (boxes(&[("cup", 0.0)]), boxes(&[("jar", 0.0)]));
    let apart = run(plan(5), &vec![other.clone(); 5], (10.0, 10.0));
    let Verdict::Failed(reason) = apart.verdict() else { panic!("must be refused") };
    assert_eq!(reason.code, ReasonCode::Disagrees);
    assert!(reason.detail.contains("0 of 5 boxes match") && reason.detail.contains("needed 0.8"), "{reason}");
    let indifferent = run(Plan { min_agreement: 0.0, ..plan(5) }, &vec![other; 5], (10.0, 10.0));
    assert_eq!(indifferent.verdict(), Verdict::Passed);
}

#[test]
fn too_few_frames_in_time_are_a_refusal() {
    let mut shadow = run(plan(5), &[(class("a"), class("a"))], (1.0, 1.0));
    shadow.tick(Duration::from_secs(59));
    assert_eq!(shadow.verdict(), Verdict::Watching);
    shadow.tick(Duration::from_secs(61));
    let Verdict::Failed(reason) = shadow.verdict() else { panic!("must be refused") };
    assert!(reason.code == ReasonCode::TooSlow && reason.detail.contains("only 1 of 5"), "{reason}");
}

#[test]
fn errors_and_memory_decide_at_once() {
    let mut shadow = Shadow::new(plan(30));
    let bad = Reason::new(ReasonCode::NotFinite, "frame 3: NaN");
    for _ in 0..19 {
        shadow.failed(&bad);
    }
    assert_eq!(shadow.verdict(), Verdict::Watching);
    shadow.failed(&bad);
    assert_eq!(code(&shadow), Some(ReasonCode::TooManyErrors));

    let mut shadow = Shadow::new(plan(30));
    shadow.sampled(Side::Candidate, 7, 101 << 20, 0.0);
    assert_eq!(code(&shadow), Some(ReasonCode::TooMuchMemory));
    let mut shadow = Shadow::new(Plan { max_memory: 0, ..plan(30) });
    shadow.sampled(Side::Candidate, 7, 101 << 20, 0.0);
    assert_eq!(shadow.verdict(), Verdict::Watching);
    assert_eq!(shadow.report().candidate.memory_bytes, Some(101 << 20));
}

/// A candidate at low priority takes long by the clock on the wall and no more of the processor.
#[test]
fn on_the_processor_its_time_counts_and_not_the_wait_for_it() {
    let pairs = vec![(class("a"), class("a")); 20];
    let mut shadow = Shadow::new(plan(20));
    for side in [Side::Current, Side::Candidate] {
        shadow.provider(side, Provider::Cpu);
        shadow.sampled(side, 7, 1, 3.0);
    }
    for (seq, (current, candidate)) in (1..).zip(&pairs) {
        shadow.answered(Side::Current, seq, current, 10.0);
        shadow.answered(Side::Candidate, seq, candidate, 90.0);
    }
    assert_eq!(shadow.verdict(), Verdict::Passed, "without figures of the processor time is not judged here");
    shadow.sampled(Side::Current, 7, 1, 3.2);
    shadow.sampled(Side::Candidate, 7, 1, 3.3);
    let report = shadow.report();
    assert_eq!(shadow.verdict(), Verdict::Passed, "{report:?}");
    assert!((report.slowdown.unwrap() - 1.5).abs() < 0.01, "{report:?}");
    shadow.provider(Side::Candidate, Provider::Cuda);
    assert_eq!(code(&shadow), Some(ReasonCode::TooSlow), "elsewhere the processor tells nothing");
}

/// The process of the serving model may be lost and started again meanwhile.
#[test]
fn a_new_process_is_measured_anew() {
    let mut shadow = Shadow::new(plan(40));
    let one = class("a");
    shadow.sampled(Side::Current, 7, 5, 3.0);
    (1..=10).for_each(|seq| shadow.answered(Side::Current, seq, &one, 1.0));
    shadow.sampled(Side::Current, 7, 5, 3.1);
    shadow.sampled(Side::Current, 8, 4, 9.0);
    (11..=20).for_each(|seq| shadow.answered(Side::Current, seq, &one, 1.0));
    shadow.sampled(Side::Current, 8, 4, 9.3);
    let cost = shadow.report().current;
    assert!((cost.cpu_ms.unwrap() - 20.0).abs() < 0.01, "{cost:?}");
    assert_eq!(cost.memory_bytes, Some(5), "the most that was seen");
}

#[test]
fn a_wish_is_laid_over_the_plan_and_checked() {
    let wish = ShadowWish { frames: Some(9), max_seconds: Some(5), ..ShadowWish::default() };
    let laid = plan(1).with(&wish);
    assert_eq!((laid.frames, laid.max_time), (9, Duration::from_secs(5)));
    assert_eq!(laid.min_agreement, 0.8);
    assert_eq!(wish.check(), Ok(()));
    for bad in [
        ShadowWish { frames: Some(u64::MAX), ..wish },
        ShadowWish { max_seconds: Some(0), ..wish },
        ShadowWish { min_agreement: Some(1.1), ..wish },
        ShadowWish { min_agreement: Some(f32::NAN), ..wish },
        ShadowWish { max_slowdown: Some(0.5), ..wish },
    ] {
        assert!(bad.check().is_err(), "{bad:?}");
    }
}
