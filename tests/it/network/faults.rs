//! Each fault, where it meets metadata, a manifest and a blob: the update succeeds after so many requests and
//! with so few bytes again, or is refused with its reason, and the model that serves goes on.

use super::{Bench, release};
use crate::support::device::Device;
use crate::support::faulty_web::{Act, Act::*, FaultyWeb};
use crate::support::{HANG, wait_until};
use edgewarden::domain::ReasonCode::{self, *};
use edgewarden::domain::deployment::Stage;
use std::fmt::Write;

/// Tries that may follow each other without progress.
const TRIES: usize = 3;

/// At which file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    Metadata,
    Manifest,
    Blob,
}

#[derive(Debug)]
enum Expect {
    /// After so many requests for the file, with at most so many bytes sent more than once.
    Succeeds(usize, u64),
    /// With this reason and these words, after so many requests for it.
    Refused(ReasonCode, &'static str, usize),
}
use Expect::{Refused, Succeeds};

/// The fault in words, what the server does, whether it does so for ever, and what must happen.
type Row = (&'static str, Vec<Act>, bool, Expect);

/// What a hotel's network answers to everything.
const LOGIN: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 26\r\nConnection: close\r\n\r\n\
                     <html>please log in</html>";

/// Faults that are the same wherever they happen.
fn anywhere(elsewhere: &str, at: At) -> Vec<Row> {
    let unreachable = |words, requests| Refused(RepositoryUnreachable, words, requests);
    let once = |name, act| (name, vec![act], false, Succeeds(2, 0));
    let always = |name, act, words| (name, vec![act], true, unreachable(words, TRIES));
    let first = |name, act, words| (name, vec![act], true, unreachable(words, 1));
    let busy = "429 Too Many Requests\r\nRetry-After: 1";
    let missing = match at {
        At::Metadata => "timestamp.json",
        At::Manifest => "manifest.json",
        At::Blob => "publish the release again",
    };
    let gone = if at == At::Blob { NotFound } else { RepositoryUnreachable };
    let portal = if at == At::Metadata { Malformed } else { SizeMismatch };
    vec![
        ("404", vec![Say("404 Not Found")], true, Refused(gone, missing, 1)),
        first("403", Say("403 Forbidden"), "403 Forbidden: let this device read"),
        first("401", Say("401 Unauthorized"), "set repository.token_file"),
        once("429, Retry-After: 1, once", Say(busy)),
        always("429 for ever", Say(busy), "429 Too Many Requests"),
        once("500 once", Say("500 Internal Server Error")),
        always(
            "500 for ever",
            Say("500 Internal Server Error"),
            "500 Internal Server Error; see the web server",
        ),
        once(
            "503, Retry-After as a date, once",
            Say("503 Unavailable\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT"),
        ),
        once("closed without an answer, once", Rubbish("")),
        always("no HTTP at all", Rubbish("SSH-2.0-OpenSSH_9.6\r\n"), "check repository.url"),
        once("silent once", Silent),
        always("silent for ever", Silent, "nothing came for 1 s"),
        first("gzip when not asked", Gzip, "compresses what was asked for as it is"),
        ("an endless body", vec![Endless], true, Refused(SizeMismatch, "", 1)),
        ("redirected elsewhere", vec![To(elsewhere.to_owned())], true, Succeeds(1, 0)),
        ("redirected in a circle", vec![Circle], true, unreachable("too many redirects", 6)),
        first(
            "redirected to no web address",
            Say("302 Found\r\nLocation: ftp://elsewhere/"),
            "no web address",
        ),
        ("a login page in the file's place", vec![Rubbish(LOGIN)], true, Refused(portal, "", 1)),
    ]
}

/// Those that need a body of some length.
fn at_blob(size: u64) -> Vec<Row> {
    let unreachable = |words, requests| Refused(RepositoryUnreachable, words, requests);
    vec![
        ("reset after 100 kB, once", vec![Reset(100_000)], false, Succeeds(2, 0)),
        (
            "reset after 70 kB, each time",
            vec![Reset(70_000)],
            true,
            Succeeds(size.div_ceil(70_000) as usize, 0),
        ),
        ("reset after 5 kB, each time", vec![Reset(5000)], true, unreachable("failed", TRIES)),
        ("ends after 100 kB, once", vec![Close(100_000)], false, Succeeds(2, 0)),
        ("stalls after 100 kB, once", vec![Stall(100_000)], false, Succeeds(2, 0)),
        ("stalls after 5 kB, each time", vec![Stall(5000)], true, unreachable("nothing came for 1 s", TRIES)),
        ("a byte now and then", vec![Drip], true, unreachable("bytes came in", TRIES)),
        ("the wrong range", vec![Close(100_000), WrongRange], false, Succeeds(3, 100_000 + size)),
        ("no ranges at all", vec![Close(100_000), NoRanges], false, Succeeds(2, 100_000)),
        (
            "416 to the rest",
            vec![Close(100_000), Say("416 Range Not Satisfiable")],
            false,
            Succeeds(3, 100_000),
        ),
        ("another ETag in the middle", vec![Close(100_000), OtherTag], false, Succeeds(2, 100_000)),
        ("the rest of a file with another ETag", vec![Close(100_000), OtherRest], false, Succeeds(3, size)),
        ("longer than signed", vec![Longer(1000)], true, Refused(SizeMismatch, "were signed", 1)),
        ("shorter than signed", vec![Shorter(1000)], true, Refused(SizeMismatch, "were signed", 1)),
    ]
}

/// Plays the rows at one kind of file on a device of its own, and gives the table's lines.
fn play(at: At) -> String {
    let count = 18 + if at == At::Blob { 14 } else { 0 };
    let bench = Bench::new(count);
    let other = FaultyWeb::start(&bench.repository.folder());
    let options = bench.options().set("repository.retries", i64::try_from(TRIES).unwrap());
    let device = Device::serving(options, &crate::support::device::release(1));
    let mut serving = crate::support::device::release(1);
    if at == At::Metadata {
        // Some time after its start, and then once an hour, the agent asks for the list of operators.
        wait_until("the list of operators is asked for", HANG, || {
            (bench.web.asked("timestamp.json").len() > 1).then_some(())
        });
    }
    let mut rows = anywhere(&other.url(), at);
    if at == At::Blob {
        rows.extend(at_blob(bench.blob(0).1));
    }
    assert_eq!(rows.len(), count);
    let mut table = String::new();
    for (number, (fault, acts, forever, expect)) in rows.into_iter().enumerate() {
        let (blob, size) = bench.blob(number);
        let part = match at {
            At::Metadata => "timestamp.json".to_owned(),
            At::Manifest => ".manifest.json".to_owned(),
            At::Blob => blob,
        };
        bench.web.plan(&part, acts, forever);
        let outcome = device.update(&release(number));
        let asked = bench.web.asked(&part);
        let sent: u64 = asked.iter().map(|asked| asked.sent).sum();
        let again = if at == At::Blob { sent.saturating_sub(size) } else { 0 };
        let what = format!("{fault} at {at:?}: {outcome:?}, {asked:?}");
        let told = match (&expect, outcome) {
            (Succeeds(requests, most), Ok(_)) => {
                assert!(asked.len() == *requests && again <= *most, "{what}");
                serving = release(number);
                format!("succeeds after {} requests, {again} bytes again", asked.len())
            }
            (Refused(code, words, requests), Err(reason)) => {
                assert_eq!((reason.code, asked.len()), (*code, *requests), "{what}");
                assert!(reason.detail.contains(words) && !reason.detail.contains('\n'), "{what}");
                let stage = device.until("the refusal is told", |heard| {
                    let deployment = heard.states.last()?.deployment.clone()?;
                    (deployment.reason.as_ref() == Some(&reason)).then_some(deployment.stage)
                });
                assert_eq!(stage, Stage::Refused, "{what}");
                let plain = reason.detail.replace(&bench.web.url(), "…/").replace(&other.url(), "…/");
                format!("refused after {} requests: {}: {plain}", asked.len(), reason.code.as_str())
            }
            (_, _) => panic!("{what}"),
        };
        bench.web.release();
        // The model that serves answers frames all the while.
        device.until_frames(1);
        assert_eq!(device.until("a state", |heard| heard.current()), serving, "{what}");
        writeln!(table, "| {fault} | {at:?} | {told} |").unwrap();
    }
    table
}

/// Three devices side by side. The table goes to standard output, and to the file that
/// `EDGEWARDEN_NETWORK_FAULTS` names.
#[test]
fn every_network_fault_is_overcome_or_refused_with_its_reason() {
    let mut table = "| network fault | at | what happened |\n| --- | --- | --- |\n".to_owned();
    let parts = std::thread::scope(|scope| {
        let begun = [At::Metadata, At::Manifest, At::Blob].map(|at| scope.spawn(move || play(at)));
        begun.map(|thread| thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
    });
    table.extend(parts);
    println!("{table}");
    if let Some(file) = std::env::var_os("EDGEWARDEN_NETWORK_FAULTS") {
        std::fs::write(file, table).expect("write the table");
    }
}
