//! Every rule alone and beside the others, and windows over a whole week.

use super::*;
use proptest::prelude::*;

const WEEK: u32 = 7 * 86_400;

fn windows(texts: &[&str]) -> Vec<Window> {
    texts.iter().map(|text| text.parse().unwrap_or_else(|fault| panic!("{fault}"))).collect()
}

/// `"Sun 01:59"`, or with seconds.
fn at(text: &str) -> Moment {
    let (day, time) = text.split_once(' ').unwrap();
    let day = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].iter().position(|one| *one == day).unwrap();
    let parts: Vec<u32> = time.split(':').map(|part| part.parse().unwrap()).collect();
    let second = parts[0] * 3600 + parts[1] * 60 + parts.get(2).unwrap_or(&0);
    Moment { day: day as u8, second }
}

fn facts(local: &str) -> Facts {
    Facts { unix: 1000, local: Some(at(local)), metered: false, remote: true, serving: true }
}

fn opens(window: &str, local: &str) -> u64 {
    windows(&[window])[0].opens_in(at(local)).as_secs()
}

#[test]
fn a_window_is_open_from_its_first_second_to_before_its_last() {
    assert_eq!(opens("02:00-05:00", "Wed 02:00"), 0);
    assert_eq!(opens("02:00-05:00", "Wed 04:59:59"), 0);
    assert_eq!(opens("02:00-05:00", "Wed 05:00"), 21 * 3600);
    assert_eq!(opens("02:00-05:00", "Wed 01:59:50"), 10);
    // Over midnight it belongs to the day on which it begins.
    assert_eq!(opens("Fri 22:00-04:00", "Sat 03:59:59"), 0);
    assert_eq!(opens("Fri 22:00-04:00", "Sat 04:00"), 6 * 86_400 + 18 * 3600);
    assert_eq!(opens("Fri 22:00-04:00", "Fri 03:00"), 19 * 3600);
    // Over the end of the week.
    assert_eq!(opens("Sun 23:00-01:00", "Mon 00:30"), 0);
    assert_eq!(opens("Sun 23:00-01:00", "Mon 01:00"), 6 * 86_400 + 22 * 3600);
    assert_eq!(opens("Sat,Sun 00:00-24:00", "Sun 23:59:59"), 0);
    assert_eq!(opens("Sat,Sun 00:00-24:00", "Mon 00:00"), 5 * 86_400);
    assert_eq!(opens("Fri-Mon 12:00-13:00", "Tue 12:30"), 3 * 86_400 - 1800);
    assert_eq!(opens("00:00-24:00", "Tue 12:30"), 0);
}

#[test]
fn what_is_no_window_is_told_with_an_example() {
    for (text, says) in [
        ("", "no span"),
        ("night", "no span"),
        ("02:00", "no span"),
        ("2:00-5:00", "no clock shows"),
        ("02:00-25:00", "no clock shows"),
        ("24:00-05:00", "no clock shows"),
        ("02:60-05:00", "no clock shows"),
        ("+2:00-05:00", "no clock shows"),
        ("02:00-02:00", "the same time"),
        ("Someday 02:00-05:00", "a day that is not known"),
        ("Sat,,Sun 02:00-05:00", "a day that is not known"),
        ("Sat Sun 02:00-05:00", "a day that is not known"),
    ] {
        let fault = text.parse::<Window>().unwrap_err();
        assert!(fault.contains(says) && fault.contains("\"02:00-05:00\""), "{text}: {fault}");
    }
    for text in ["02:00-05:00", "Mon,Tue 22:30-04:00", "Sat,Sun 00:00-24:00"] {
        assert_eq!(windows(&[text])[0].to_string(), text);
    }
    assert_eq!(windows(&["mon-WED  22:30-04:00"])[0].to_string(), "Mon,Tue,Wed 22:30-04:00");
}

#[test]
fn outside_of_the_windows_nothing_is_tried() {
    let rules = Rules { windows: windows(&["02:00-05:00", "Sun 12:00-13:00"]), ..Rules::default() };
    let start = Start::default();
    let apply = |facts: &Facts| wait(Part::Apply, &rules, &start, facts);
    assert_eq!(apply(&facts("Wed 02:30")), None);
    let waits = |seconds| Some(Wait { hold: Hold::Window, time: Some(Duration::from_secs(seconds)) });
    assert_eq!(apply(&facts("Sun 11:00")), waits(3600));
    assert_eq!(apply(&facts("Sun 13:00")), waits(13 * 3600));
    // A clock that is not set counts as outside.
    let unset = Facts { local: None, ..facts("Wed 02:30") };
    assert_eq!(apply(&unset), Some(Wait { hold: Hold::Clock, time: None }));
    // Whoever says so does not wait, nor does the first model.
    let now = Start { now: true, not_before: None };
    assert_eq!(wait(Part::Apply, &rules, &now, &unset), None);
    assert_eq!(apply(&Facts { serving: false, ..unset }), None);
    // Fetching is not held, unless it is to be.
    for part in [Part::Begin, Part::Fetch { bytes: 1 }] {
        assert_eq!(wait(part, &rules, &start, &facts("Sun 11:00")), None);
        let rules = Rules { fetch_in_windows: true, ..rules.clone() };
        assert_eq!(wait(part, &rules, &start, &facts("Sun 11:00")), waits(3600));
        let file = Facts { remote: false, ..facts("Sun 11:00") };
        assert_eq!(wait(part, &rules, &start, &file), None, "a file is here already");
    }
    assert_eq!(wait(Part::Apply, &Rules::default(), &start, &unset), None, "no windows: at any time");
}

#[test]
fn a_metered_connection_brings_what_is_allowed() {
    let metered = Facts { metered: true, ..facts("Mon 00:00") };
    for (rule, bytes, held) in [
        (Metered::Never, 1, true),
        (Metered::Never, 0, false),
        (Metered::Small, 1000, false),
        (Metered::Small, 1001, true),
        (Metered::Always, u64::MAX, false),
    ] {
        let rules = Rules { metered: rule, metered_max: 1000, ..Rules::default() };
        let fetch = |facts: &Facts, start: Start| wait(Part::Fetch { bytes }, &rules, &start, facts);
        let expected = held.then_some(Wait { hold: Hold::Metered, time: None });
        assert_eq!(fetch(&metered, Start::default()), expected, "{rule:?} {bytes}");
        assert_eq!(fetch(&metered, Start { now: true, not_before: None }), None);
        assert_eq!(fetch(&facts("Mon 00:00"), Start::default()), None);
        assert_eq!(fetch(&Facts { remote: false, ..metered }, Start::default()), None);
        for part in [Part::Begin, Part::Apply] {
            assert_eq!(wait(part, &rules, &Start::default(), &metered), None);
        }
    }
}

#[test]
fn a_group_begins_spread_over_the_jitter() {
    let rules = Rules { start_jitter: Duration::from_secs(600), ..Rules::default() };
    let wish = StartWish { now: false, spread: true };
    let drawn: Vec<i64> =
        (0..=600_u64).map(|dice| Start::begin(wish, &rules, 1000, dice).not_before.unwrap() - 1000).collect();
    assert_eq!((drawn[0], drawn[600]), (0, 600));
    let start = Start::begin(wish, &rules, 1000, 300);
    let at = |unix| wait(Part::Begin, &rules, &start, &Facts { unix, ..facts("Mon 00:00") });
    let left = |seconds| Some(Wait { hold: Hold::Jitter, time: Some(Duration::from_secs(seconds)) });
    assert_eq!(at(1000), left(300));
    assert_eq!(at(1299), left(1));
    assert_eq!(at(1300), None);
    assert_eq!(at(-5_000_000), left(600), "a clock that was set back makes it no longer than it can be");
    assert_eq!(wait(Part::Apply, &rules, &start, &facts("Mon 00:00")), None, "only before it begins");
    // Who means this device alone, or says so, does not wait.
    for wish in [StartWish::default(), StartWish { now: true, spread: true }] {
        assert_eq!(Start::begin(wish, &rules, 1000, 300).not_before, None);
        assert_eq!(start.again(wish).not_before, None);
    }
    assert_eq!(start.again(wish), start, "the same to the group again changes nothing");
    assert_eq!(Start::begin(wish, &Rules::default(), 1000, 300), Start::default());
}

#[test]
fn what_is_kept_and_told_of_a_wait() {
    let start = Start { now: false, not_before: Some(5) };
    let text = serde_json::to_string(&start).unwrap();
    assert_eq!(serde_json::from_str::<Start>(&text).unwrap(), start);
    assert!(serde_json::from_str::<Start>("{}").unwrap().is_plain());
    for hold in [Hold::Jitter, Hold::Window, Hold::Clock, Hold::Metered] {
        let until = Some("2026-11-22T02:00:00+01:00".to_owned());
        let waiting = Waiting { hold, until };
        assert!(waiting.told().contains("update."), "the key that does it: {}", waiting.told());
        let json = serde_json::to_value(&waiting).unwrap();
        assert_eq!(serde_json::from_value::<Waiting>(json).unwrap(), waiting);
    }
}

proptest! {
    /// Open now or so long from now, and never earlier.
    #[test]
    fn a_wait_ends_when_the_window_opens(from in 0u32..1440, length in 1u32..=1440, days in 1u8..128, now in 0..WEEK) {
        let names = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let days: Vec<_> = (0..7).filter(|day| days & (1 << day) != 0).map(|day| names[day]).collect();
        let to = if (from + length) % 1440 == 0 { 1440 } else { (from + length) % 1440 };
        let text = format!("{} {:02}:{:02}-{:02}:{:02}", days.join(","), from / 60, from % 60, to / 60, to % 60);
        prop_assume!(to != from);
        let window: Window = text.parse().unwrap();
        let moment = |second: u32| Moment { day: (second % WEEK / 86_400) as u8, second: second % 86_400 };
        let wait = window.opens_in(moment(now)).as_secs() as u32;
        prop_assert!(wait < WEEK);
        prop_assert_eq!(window.opens_in(moment(now + wait)), Duration::ZERO);
        if wait > 0 {
            prop_assert_eq!(window.opens_in(moment(now + wait - 1)).as_secs(), 1);
        }
    }
}
