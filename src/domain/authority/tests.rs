//! The decision over every single fault, every pair of role and command, and every policy.

use super::*;
use proptest::prelude::*;

const NOW: i64 = 1_800_000_000_000;
const MINUTE: i64 = 60_000;

fn to() -> Addressee {
    Addressee {
        device: "pi-1".parse().unwrap(),
        groups: vec!["line-3".parse().unwrap(), "hall".parse().unwrap()],
    }
}

fn operator() -> Operator {
    Operator { name: "anna".parse().unwrap(), roles: Role::ALL.into(), groups: None, expires_ms: None }
}

fn order() -> Order {
    Order {
        audience: "pi-1".parse().unwrap(),
        sequence: 7,
        issued_ms: NOW - MINUTE,
        expires_ms: NOW + MINUTE,
        role: Role::Operate,
    }
}

fn clock() -> Clock {
    Clock { now_ms: NOW, sure: true, tolerance_ms: 2 * MINUTE }
}

fn groups(names: &[&str]) -> Option<BTreeSet<DeviceId>> {
    Some(names.iter().map(|name| name.parse().unwrap()).collect())
}

#[test]
fn a_good_command_runs() {
    for seen in [None, Some(0), Some(6)] {
        assert_eq!(decide(&order(), &operator(), &to(), seen, clock()), Ok(()));
    }
    for audience in ["group:line-3", "group:hall"] {
        let order = Order { audience: audience.parse().unwrap(), ..order() };
        assert_eq!(decide(&order, &operator(), &to(), None, clock()), Ok(()));
    }
}

/// Each refusal by the one change that causes it.
#[test]
fn every_single_fault_is_refused_with_its_code() {
    type Change = fn(&mut Order, &mut Operator, &mut Option<u64>, &mut Clock);
    let cases: [(ReasonCode, Change); 17] = [
        (ReasonCode::WrongAudience, |order, _, _, _| order.audience = "pi-2".parse().unwrap()),
        (ReasonCode::WrongAudience, |order, _, _, _| order.audience = "group:line-4".parse().unwrap()),
        // A group that is called like the device is another audience.
        (ReasonCode::WrongAudience, |order, _, _, _| order.audience = "group:pi-1".parse().unwrap()),
        (ReasonCode::Expired, |_, operator, _, _| operator.expires_ms = Some(NOW)),
        (ReasonCode::Expired, |_, operator, _, _| operator.expires_ms = Some(0)),
        (ReasonCode::NotAllowed, |_, operator, _, _| operator.roles = [Role::Observe, Role::Deploy].into()),
        (ReasonCode::NotAllowed, |_, operator, _, _| operator.roles = [].into()),
        (ReasonCode::NotAllowed, |_, operator, _, _| operator.groups = groups(&["line-4"])),
        (ReasonCode::NotAllowed, |_, operator, _, _| operator.groups = groups(&[])),
        (ReasonCode::NotAllowed, |order, operator, _, _| {
            // Good for one group of the device, and not for the other.
            operator.groups = groups(&["hall"]);
            order.audience = "group:line-3".parse().unwrap();
        }),
        (ReasonCode::BadRequest, |order, _, _, _| order.expires_ms = order.issued_ms),
        (ReasonCode::BadRequest, |order, _, _, _| order.expires_ms = i64::MIN),
        (ReasonCode::BadRequest, |order, _, _, _| order.expires_ms = order.issued_ms + MAX_LIFETIME_MS + 1),
        (ReasonCode::NotYetValid, |order, _, _, _| {
            order.issued_ms = NOW + 2 * MINUTE + 1;
            order.expires_ms = NOW + 5 * MINUTE;
        }),
        (ReasonCode::Expired, |order, _, _, _| order.expires_ms = NOW),
        (ReasonCode::Replayed, |_, _, seen, _| *seen = Some(7)),
        (ReasonCode::Replayed, |_, _, seen, _| *seen = Some(u64::MAX)),
    ];
    for (number, (code, change)) in cases.into_iter().enumerate() {
        let (mut order, mut operator, mut seen, mut clock) = (order(), operator(), None, clock());
        change(&mut order, &mut operator, &mut seen, &mut clock);
        let refusal = decide(&order, &operator, &to(), seen, clock).unwrap_err();
        assert_eq!(refusal.code(), code, "case {number}: {refusal}");
        assert!(!refusal.to_string().contains("  "), "case {number}: {refusal}");
    }
}

#[test]
fn the_edges_of_time_are_as_documented() {
    let judge = |order: &Order, clock| decide(order, &operator(), &to(), None, clock);
    let ahead = Order { issued_ms: NOW + 2 * MINUTE, expires_ms: NOW + 3 * MINUTE, ..order() };
    assert_eq!(judge(&ahead, clock()), Ok(()), "within the tolerance");
    let last = Order { expires_ms: NOW + 1, ..order() };
    assert_eq!(judge(&last, clock()), Ok(()), "its last millisecond");
    let longest = Order { expires_ms: order().issued_ms + MAX_LIFETIME_MS, ..order() };
    assert_eq!(judge(&longest, clock()), Ok(()));
    let mut expiring = operator();
    expiring.expires_ms = Some(NOW + 1);
    assert_eq!(decide(&order(), &expiring, &to(), None, clock()), Ok(()));
}

/// A board that begins in 1970, or weeks behind: commands of today seem to come from the future.
#[test]
fn a_clock_that_was_never_set_leaves_the_device_commandable() {
    for now_ms in [0, NOW - 90 * 86_400_000, i64::MIN] {
        let unset = Clock { now_ms, sure: false, ..clock() };
        assert_eq!(decide(&order(), &operator(), &to(), Some(6), unset), Ok(()));
        // The number holds whatever the clock says.
        let again = decide(&order(), &operator(), &to(), Some(7), unset).unwrap_err();
        assert_eq!(again.code(), ReasonCode::Replayed);
    }
    // A clock that is not sure still refuses what is over by what is known to have passed.
    let late = Clock { now_ms: NOW + 2 * MINUTE, sure: false, ..clock() };
    assert_eq!(decide(&order(), &operator(), &to(), None, late).unwrap_err().code(), ReasonCode::Expired);
}

#[test]
fn an_operator_of_a_group_commands_its_devices_and_no_others() {
    let line = Operator { groups: groups(&["line-3"]), ..operator() };
    let judge = |audience: &str, to: &Addressee| {
        let order = Order { audience: audience.parse().unwrap(), ..order() };
        decide(&order, &line, to, None, clock()).map_err(|refusal| refusal.code())
    };
    assert_eq!(judge("pi-1", &to()), Ok(()), "a device of the group by its own name");
    assert_eq!(judge("group:line-3", &to()), Ok(()));
    let elsewhere = Addressee { device: "pi-1".parse().unwrap(), groups: vec!["hall".parse().unwrap()] };
    assert_eq!(judge("pi-1", &elsewhere), Err(ReasonCode::NotAllowed));
}

fn every_command() -> [(Command, Role); 13] {
    let slot: crate::domain::SlotName = "detector".parse().unwrap();
    let shadow = crate::domain::shadow::ShadowWish::default();
    let start = crate::domain::maintenance::StartWish { now: true, spread: false };
    [
        (Command::Status, Role::Observe),
        (Command::Snapshot { pipeline: None, max_edge: 640, boxes: false }, Role::Observe),
        (Command::Diagnose, Role::Observe),
        (Command::Identify { blink_s: 1 }, Role::Observe),
        (Command::Audit { lines: 1 }, Role::Observe),
        (Command::Set { values: Default::default() }, Role::Operate),
        (Command::Pause { pipeline: None, paused: true }, Role::Operate),
        (Command::Pause { pipeline: None, paused: false }, Role::Operate),
        (Command::Restart, Role::Operate),
        (
            Command::Update { slot: slot.clone(), release: "m@1.0.0".parse().unwrap(), shadow, start },
            Role::Deploy,
        ),
        (Command::Install { slot: None, file: "/x".into(), shadow, start }, Role::Deploy),
        (Command::Rollback { slot: slot.clone() }, Role::Deploy),
        (Command::Abort { slot }, Role::Deploy),
    ]
}

/// Every command with every set of roles: it runs exactly where its role is in the set.
#[test]
fn a_key_does_what_its_roles_say_and_nothing_else() {
    for (command, needed) in every_command() {
        assert_eq!(role(&command), needed, "{command:?}");
        for set in 0..8_u8 {
            let bits = Role::ALL.into_iter().enumerate();
            let roles: BTreeSet<Role> =
                bits.filter(|(bit, _)| set & (1 << bit) != 0).map(|(_, role)| role).collect();
            let operator = Operator { roles: roles.clone(), ..operator() };
            let order = Order { role: role(&command), ..order() };
            let outcome = decide(&order, &operator, &to(), None, clock());
            assert_eq!(outcome.is_ok(), roles.contains(&needed), "{command:?} {roles:?}");
        }
    }
}

/// Every policy, every role, with and without a list.
#[test]
fn what_is_taken_unsigned_follows_from_the_policy() {
    for requirement in [Requirement::Auto, Requirement::Always, Requirement::Never] {
        for bits in 0..8_u8 {
            let [unsigned_observe, loopback, listed] = [1, 2, 4].map(|bit| bits & bit != 0);
            let policy = Policy { requirement, unsigned_observe, loopback };
            for role in Role::ALL {
                let demanded = match requirement {
                    Requirement::Always => true,
                    Requirement::Never => false,
                    Requirement::Auto => listed || !loopback,
                };
                let taken = !demanded || (role == Role::Observe && unsigned_observe);
                let outcome = policy.unsigned(role, listed);
                assert_eq!(outcome.is_ok(), taken, "{policy:?} {role} listed {listed}");
                if let Err(refusal) = outcome {
                    assert_eq!(refusal.code(), ReasonCode::Unsigned);
                    assert!(refusal.to_string().contains("sign-command"));
                }
            }
        }
    }
}

#[test]
fn an_audience_reads_back_as_written() {
    for text in ["pi-1", "group:line-3"] {
        assert_eq!(text.parse::<Audience>().unwrap().to_string(), text);
    }
    let group: Audience = "group:line-3".parse().unwrap();
    assert_eq!(serde_json::to_string(&group).unwrap(), r#"{"group":"line-3"}"#);
    for bad in ["", "group:", "group:a/b", "device:pi-1", "#"] {
        assert!(bad.parse::<Audience>().is_err(), "{bad}");
    }
}

proptest! {
    /// Whatever the order in which numbers come, each is accepted once, and never after a higher one.
    #[test]
    fn no_number_counts_twice(numbers in proptest::collection::vec(0_u64..40, 0..60)) {
        let mut seen = None;
        let mut accepted = Vec::new();
        for sequence in numbers {
            let order = Order { sequence, ..order() };
            if decide(&order, &operator(), &to(), seen, clock()).is_ok() {
                seen = Some(sequence);
                accepted.push(sequence);
            }
        }
        prop_assert!(accepted.windows(2).all(|pair| pair[0] < pair[1]));
    }

    #[test]
    fn no_time_is_a_panic(issued_ms: i64, expires_ms: i64, now_ms: i64, sure: bool) {
        let order = Order { issued_ms, expires_ms, ..order() };
        let clock = Clock { now_ms, sure, tolerance_ms: MINUTE };
        if let Err(refusal) = decide(&order, &operator(), &to(), None, clock) {
            let _ = refusal.to_string();
        }
    }
}
