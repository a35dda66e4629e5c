//! Every state with every event, and any sequence of events with restarts in between.

use super::*;
use crate::domain::reason::ReasonCode;
use proptest::prelude::*;

fn bundle(version: &str) -> BundleRef {
    let byte = version.bytes().next().unwrap();
    let release = format!("detector@{version}").parse().unwrap();
    BundleRef { release, digest: crate::domain::Digest::from_bytes([byte; 32]) }
}

fn reason(code: ReasonCode) -> Reason {
    Reason::new(code, "because")
}

fn new() -> BundleRef {
    bundle("3.0.0")
}

fn begin() -> Deployment {
    let (id, slot) = ("d-1".parse().unwrap(), "detector".parse().unwrap());
    let (serving, older) = (Some(bundle("2.0.0")), Some(bundle("1.0.0")));
    Deployment::begin(id, slot, new().release, Origin::Repository, serving, older).0
}

/// One state of each kind, in the order of the table's rows.
fn states() -> Vec<State> {
    let (candidate, reason) = (new(), reason(ReasonCode::TooSlow));
    vec![
        State::Resolving,
        State::Fetching { candidate: candidate.clone() },
        State::Verifying { candidate: candidate.clone() },
        State::Staged { candidate: candidate.clone(), trials: 0 },
        State::OnTrial { candidate: candidate.clone(), trials: 1 },
        State::Shadowing { candidate: candidate.clone(), trials: 1 },
        State::Swapping { candidate: candidate.clone(), trials: 1 },
        State::Probation { candidate: candidate.clone(), baseline_ms: Some(9.0), boots: 0 },
        State::Committed { candidate: candidate.clone() },
        State::RollingBack { candidate: candidate.clone(), reason: reason.clone() },
        State::RolledBack { candidate, reason: reason.clone() },
        State::Refused { reason },
    ]
}

/// One event of each kind, in the order of the table's columns.
fn events() -> Vec<Event> {
    vec![
        Event::Resolved { candidate: new() },
        Event::Fetched,
        Event::Verified,
        Event::TrialBegun,
        Event::TrialPassed,
        Event::ShadowPassed,
        Event::Swapped { baseline_ms: Some(9.0) },
        Event::ProbationPassed,
        Event::Failed(reason(ReasonCode::LoadFailed)),
        Event::PutBack,
        Event::Stop(reason(ReasonCode::Aborted)),
    ]
}

/// The event's column; a new kind of event does not compile until it has one.
fn column(event: &Event) -> usize {
    match event {
        Event::Resolved { .. } => 0,
        Event::Fetched => 1,
        Event::Verified => 2,
        Event::TrialBegun => 3,
        Event::TrialPassed => 4,
        Event::ShadowPassed => 5,
        Event::Swapped { .. } => 6,
        Event::ProbationPassed => 7,
        Event::Failed(_) => 8,
        Event::PutBack => 9,
        Event::Stop(_) => 10,
    }
}

fn letter(stage: Stage) -> char {
    match stage {
        Stage::Resolving => 'R',
        Stage::Fetching => 'F',
        Stage::Verifying => 'V',
        Stage::Staged => 'S',
        Stage::OnTrial => 'T',
        Stage::Shadowing => 'H',
        Stage::Swapping => 'W',
        Stage::Probation => 'P',
        Stage::Committed => 'C',
        Stage::RollingBack => 'B',
        Stage::RolledBack => 'K',
        Stage::Refused => 'X',
    }
}

#[test]
fn every_state_with_every_event() {
    // Next stage; `.` out of place, `-` ended, `b` rolling back already.
    #[rustfmt::skip]
    let table = [
        // Resolved, Fetched, Verified, TrialBegun, TrialPassed, ShadowPassed, Swapped, ProbationPassed, Failed,
        // PutBack, Stop
        ('R', "F.......X.X"),
        ('F', ".V......X.X"),
        ('V', "..S.....X.X"),
        ('S', "...T....X.X"),
        ('T', "....W...X.X"),
        ('H', ".....W..X.X"),
        ('W', "......P.B.B"),
        ('P', ".......CB.B"),
        ('C', "-----------"),
        ('B', "........KKb"),
        ('K', "-----------"),
        ('X', "-----------"),
    ];
    assert_eq!(states().len(), table.len());
    for (state, (row, cells)) in states().into_iter().zip(table) {
        assert_eq!(letter(state.stage()), row);
        for (number, event) in events().into_iter().enumerate() {
            assert_eq!(column(&event), number);
            let now = begin().with(state.clone());
            let found = match step(&now, event.clone()) {
                Ok((next, _)) => letter(next.stage()),
                Err(Refusal::OutOfPlace) => '.',
                Err(Refusal::Ended) => '-',
                Err(Refusal::RollingBack) => 'b',
            };
            assert_eq!(found, cells.chars().nth(number).unwrap(), "{row} with {event:?}");
        }
    }
}

/// What is done on the way into each stage: exactly one piece of work, or none at the end.
#[test]
fn every_step_gives_the_work_of_the_state_it_leads_to() {
    for state in states() {
        for event in events() {
            let Ok((next, effects)) = step(&begin().with(state.clone()), event) else { continue };
            assert_eq!(work(&effects).map(|effect| leads_from(&effect)), unfinished(&next), "{effects:?}");
        }
    }
    for state in states() {
        for current in [None, Some(bundle("2.0.0")), Some(new()), Some(bundle("9.0.0"))] {
            for origin in [Origin::Repository, Origin::Previous] {
                let found = Deployment { origin, ..begin().with(state.clone()) };
                let (next, effects) = recover(found, current.as_ref(), 3);
                assert_eq!(
                    work(&effects).map(|effect| leads_from(&effect)),
                    unfinished(&next),
                    "{effects:?}"
                );
            }
        }
    }
}

/// The one effect that will report an event.
fn work(effects: &[Effect]) -> Option<Effect> {
    let reports = |effect: &&Effect| match effect {
        Effect::Resolve
        | Effect::Fetch
        | Effect::Stage
        | Effect::BeginTrial
        | Effect::Try { .. }
        | Effect::Shadow { .. }
        | Effect::Swap { .. }
        | Effect::SwapBack { .. }
        | Effect::Watch { .. }
        | Effect::PutBack => true,
        Effect::Discard | Effect::RepairLinks | Effect::Settle | Effect::CollectGarbage => false,
    };
    let found: Vec<_> = effects.iter().filter(reports).collect();
    assert!(found.len() <= 1 && (found.is_empty() || reports(&effects.last().unwrap())), "{effects:?}");
    found.first().map(|effect| (*effect).clone())
}

fn leads_from(effect: &Effect) -> Stage {
    match effect {
        Effect::Resolve => Stage::Resolving,
        Effect::Fetch => Stage::Fetching,
        Effect::Stage => Stage::Verifying,
        Effect::BeginTrial => Stage::Staged,
        Effect::Try { .. } => Stage::OnTrial,
        Effect::Shadow { .. } => Stage::Shadowing,
        Effect::Swap { .. } | Effect::SwapBack { .. } => Stage::Swapping,
        Effect::Watch { .. } => Stage::Probation,
        Effect::PutBack => Stage::RollingBack,
        Effect::Discard | Effect::RepairLinks | Effect::Settle | Effect::CollectGarbage => {
            unreachable!("{effect:?} reports nothing")
        }
    }
}

fn unfinished(deployment: &Deployment) -> Option<Stage> {
    Some(deployment.stage()).filter(|stage| !stage.is_final())
}

#[test]
fn what_a_restart_finds() {
    use Stage as T;
    let (old, new, other) = (Some(bundle("2.0.0")), Some(new()), Some(bundle("9.0.0")));
    // Stage reached when the link names: the bundle before, the candidate, another one, none.
    let expected = [
        [T::Resolving, T::Refused, T::Refused, T::Refused],
        [T::Resolving, T::Refused, T::Refused, T::Refused],
        [T::Resolving, T::Refused, T::Refused, T::Refused],
        [T::Staged, T::Refused, T::Refused, T::Refused],
        [T::Staged, T::Refused, T::Refused, T::Refused],
        [T::Staged, T::Refused, T::Refused, T::Refused],
        [T::Staged, T::Probation, T::Refused, T::Refused],
        [T::Refused, T::Probation, T::Refused, T::Refused],
        [T::Committed; 4],
        [T::RollingBack, T::RollingBack, T::Refused, T::Refused],
        [T::RolledBack; 4],
        [T::Refused; 4],
    ];
    for (state, row) in states().into_iter().zip(expected) {
        for (current, stage) in [&old, &new, &other, &None].into_iter().zip(row) {
            let (next, _) = recover(begin().with(state.clone()), current.as_ref(), 3);
            assert_eq!(next.stage(), stage, "{state:?} with {current:?}");
        }
    }
}

#[test]
fn a_trial_or_probation_that_takes_the_agent_down_is_given_up() {
    let mut trial = begin().with(State::Staged { candidate: new(), trials: 0 });
    let mut restarts = 0;
    while !trial.is_final() {
        trial = step(&trial, Event::TrialBegun).unwrap().0;
        trial = recover(trial, Some(&bundle("2.0.0")), 3).0;
        restarts += 1;
    }
    assert_eq!((restarts, trial.reason().unwrap().code), (4, ReasonCode::BootLoop));

    let mut probation = begin().with(State::Probation { candidate: new(), baseline_ms: Some(7.0), boots: 0 });
    let mut restarts = 0;
    while probation.stage() == Stage::Probation {
        let effects;
        (probation, effects) = recover(probation, Some(&new()), 3);
        restarts += 1;
        let expected = if restarts < 4 { Effect::Watch { baseline_ms: Some(7.0) } } else { Effect::PutBack };
        assert_eq!(effects.last(), Some(&expected), "the baseline is kept");
    }
    assert_eq!((restarts, probation.reason().unwrap().code), (4, ReasonCode::BootLoop));
}

#[test]
fn the_release_that_serves_already_is_committed_without_work() {
    let (next, effects) = step(&begin(), Event::Resolved { candidate: bundle("2.0.0") }).unwrap();
    assert_eq!((next.stage(), effects), (Stage::Committed, vec![]));
    assert_eq!(next.links(), (Some(&bundle("2.0.0")), Some(&bundle("1.0.0"))));
}

#[test]
fn a_rollback_by_command_needs_no_trial_and_no_probation() {
    let (id, slot) = ("d-1".parse().unwrap(), "detector".parse().unwrap());
    let (rollback, effects) = Deployment::begin_rollback(id, slot, Some(bundle("2.0.0")), bundle("1.0.0"));
    assert_eq!(effects, [Effect::SwapBack { candidate: bundle("1.0.0") }]);
    let (done, _) = step(&rollback, Event::Swapped { baseline_ms: None }).unwrap();
    assert_eq!(done.stage(), Stage::Committed);
    assert_eq!(done.links(), (Some(&bundle("1.0.0")), Some(&bundle("2.0.0"))));
    let (back, _) = step(&rollback, Event::Failed(reason(ReasonCode::LoadFailed))).unwrap();
    assert_eq!(back.links(), (Some(&bundle("2.0.0")), Some(&bundle("1.0.0"))));
}

fn plan(frames: u64) -> shadow::Plan {
    shadow::Plan {
        frames,
        max_time: std::time::Duration::from_secs(9),
        min_agreement: 0.5,
        max_slowdown: 2.0,
        slow_floor_ms: 0.0,
        max_memory: 0,
        max_error_ratio: 0.0,
    }
}

#[test]
fn a_shadow_run_comes_between_the_trial_and_the_swap_where_it_is_asked_for() {
    let tried = |now: Deployment| {
        let on_trial = now.with(State::OnTrial { candidate: new(), trials: 1 });
        step(&on_trial, Event::TrialPassed).unwrap()
    };
    let (shadowing, effects) = tried(begin().shadowed(plan(5)));
    assert_eq!((shadowing.stage(), effects), (Stage::Shadowing, vec![Effect::Shadow { plan: plan(5) }]));
    assert_eq!(step(&shadowing, Event::ShadowPassed).unwrap().0.stage(), Stage::Swapping);
    let (refused, effects) = step(&shadowing, Event::Failed(reason(ReasonCode::Disagrees))).unwrap();
    assert_eq!((refused.stage(), &effects[0]), (Stage::Refused, &Effect::Discard));

    assert_eq!(tried(begin().shadowed(plan(0))).0.stage(), Stage::Swapping, "none is asked for");
    let first = Deployment { serving: None, ..begin().shadowed(plan(5)) };
    assert_eq!(tried(first).0.stage(), Stage::Swapping, "nothing to compare it with");
}

/// As the version before shadow runs wrote it.
#[test]
fn a_record_without_a_shadow_plan_still_reads() {
    let text = r#"{"id":"d-1","slot":"detector","release":"detector@3.0.0","origin":{"from":"repository"},
        "serving":null,"older":null,"state":{"stage":"resolving"}}"#;
    let read: Deployment = serde_json::from_str(text).unwrap();
    assert_eq!((read.stage(), read.shadow, read.shadow_report), (Stage::Resolving, None, None));
}

#[test]
fn a_deployment_reads_back_from_the_journal_as_written() {
    for state in states() {
        let written = begin().shadowed(plan(7)).with(state);
        let text = serde_json::to_string(&written).unwrap();
        assert_eq!(serde_json::from_str::<Deployment>(&text).unwrap(), written, "{text}");
    }
}

proptest! {
    /// Any events and restarts, in any order: a trial comes before every swap and a passed probation
    /// before every commit, the links always name bundles that were good, and what has ended stays.
    #[test]
    fn nothing_illegal_happens(moves in proptest::collection::vec(0_usize..13, 0..80), first in any::<bool>(), shadow in any::<bool>()) {
        let mut now = if shadow { begin().shadowed(plan(5)) } else { begin() };
        if first {
            (now.serving, now.older) = (None, None);
        }
        let before = (now.serving.clone(), now.older.clone());
        let (mut tried, mut compared, mut judged, mut last) = (false, !shadow || first, false, now.clone());
        for number in moves {
            match events().get(number) {
                Some(event) => {
                    let Ok((next, _)) = step(&now, event.clone()) else { continue };
                    tried |= *event == Event::TrialPassed;
                    compared |= *event == Event::ShadowPassed;
                    judged |= *event == Event::ProbationPassed;
                    now = next;
                }
                None => {
                    let current = now.links().0.cloned();
                    let (next, _) = recover(now.clone(), current.as_ref(), 2);
                    now = next;
                }
            }
            let (current, previous) = (now.links().0.cloned(), now.links().1.cloned());
            match now.stage() {
                Stage::Swapping => prop_assert!(tried && compared),
                Stage::Probation => prop_assert!(tried && current == Some(new()) && previous == before.0),
                Stage::Committed => prop_assert!(tried && judged && current == Some(new())),
                Stage::Resolving | Stage::Fetching | Stage::Verifying | Stage::Staged | Stage::OnTrial
                | Stage::Shadowing | Stage::RollingBack | Stage::RolledBack | Stage::Refused => {
                    prop_assert_eq!((current, previous), before.clone())
                }
            }
            prop_assert!(!last.is_final() || last == now, "{:?} left {:?}", now.stage(), last.stage());
            last = now.clone();
        }
    }
}
