//! Nothing that was accepted is lost: whatever the line, the broker and the power do, and whoever comes with two
//! hundred devices. Inference is made up here; the client, the spool and the handling of commands are the real ones.

use crate::support::ear::{Ear, Heard};
use crate::support::light::{self, Told};
use crate::support::mosquitto::{Mosquitto, Setup, free_port};
use crate::support::rough_line::{Dice, RoughLine};
use edgewarden::mqtt::payloads::Stamped;
use edgewarden::mqtt::spool::{DiskStore, Spool};
use edgewarden::sys::store::Store;
use std::collections::{HashMap, HashSet};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A guard against hanging, not a measure.
const PATIENCE: Duration = Duration::from_secs(240);
/// Messages that must have been accepted.
const WANTED: usize = 10_000;
/// Processes that must have been killed.
const KILLS: u32 = 8;
/// Messages of one life; then it only sends.
const PER_LIFE: u64 = 1500;
/// Says to the process that is killed what it is to do: folder, port, life, whether it is the last one, seed.
const TELLER: &str = "EDGEWARDEN_TEST_TELLER";

/// The test that is that process.
const ITSELF: &str = "loss::what_waits_in_a_spool_is_sent_by_the_next_process";

/// A process that says messages, and on its standard output which of them its spool has accepted.
struct Teller {
    child: Child,
    lines: Receiver<String>,
}

impl Teller {
    fn start(folder: &Path, port: u16, life: u64, last: bool, seed: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", ITSELF, "--nocapture"])
            .env(TELLER, format!("{} {port} {life} {last} {seed}", folder.display()))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("start this program again");
        let (to, lines) = channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = to.send(line);
            }
        });
        Self { child, lines }
    }

    /// Reads what it says until `end`, or until it ended; true once it said that its spool is empty.
    fn hear(&self, end: Instant, noted: &mut u64) -> bool {
        loop {
            match self.lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
                Ok(line) if line == "empty" => return true,
                Ok(line) => {
                    if let Some(number) = line.strip_prefix("accepted ") {
                        *noted = number.parse().unwrap();
                    }
                }
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return false,
            }
        }
    }

    fn until_first(&self, noted: &mut u64) {
        let end = Instant::now() + PATIENCE;
        while *noted == 0 {
            assert!(Instant::now() < end, "the teller says nothing");
            self.hear(Instant::now() + Duration::from_millis(20), noted);
        }
    }

    /// `kill -9`, and what it had said by then.
    fn kill(mut self, noted: &mut u64) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.hear(Instant::now() + PATIENCE, noted);
    }
}

/// Says messages and, on standard output, which of them the spool has accepted; the last one only sends.
async fn teller(folder: &Path, port: u16, life: u64, last: bool, seed: u64) {
    let mut dice = Dice::new(seed ^ life);
    let store = Store::open(folder).expect("the store opens").store;
    let (handle, _incoming) = light::start(port, "teller", Spool::open(DiskStore::new(&store)));
    let mut n = 0;
    while n < PER_LIFE && !last {
        for _ in 0..=dice.below(64) {
            n += 1;
            light::tell(&handle, &Told { life, n, pad: "x".repeat(dice.below(600) as usize) });
        }
        assert!(handle.accepted().await);
        // What stands before it on the line is the harness's.
        println!("\naccepted {n}");
    }
    while !last || !handle.accepted().await || handle.figures().spool_len > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    println!("\nempty");
    handle.shutdown(Duration::from_secs(5)).await;
}

/// Also what the test below starts and kills: then it is told what to do.
#[test]
fn what_waits_in_a_spool_is_sent_by_the_next_process() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    if let Ok(told) = std::env::var(TELLER) {
        let words: Vec<&str> = told.split(' ').collect();
        let [folder, port, life, last, seed] = words[..] else { panic!("{told}") };
        let number = |text: &str| text.parse::<u64>().unwrap();
        let port = u16::try_from(number(port)).unwrap();
        runtime.block_on(teller(Path::new(folder), port, number(life), last == "true", number(seed)));
        return;
    }
    let (folder, heard, broker) =
        (tempfile::tempdir().unwrap(), Arc::new(Heard::default()), Mosquitto::start());
    let _ear = Ear::listen(broker.port, &heard, PATIENCE);
    {
        // Nobody listens there: all of it waits.
        let teller = Teller::start(&folder.path().join("store"), free_port(), 1, false, 7);
        let mut noted = 0;
        teller.until_first(&mut noted);
        teller.kill(&mut noted);
    }
    runtime.block_on(teller(&folder.path().join("store"), broker.port, 0, true, 7));
    heard.until("the first message", PATIENCE, |messages| {
        messages.iter().any(|(topic, _)| topic.ends_with("/ack/told/1-1")).then_some(())
    });
}

/// The broker ends at once, forgets everything, and comes back. Nothing that it acknowledged is still to be heard.
fn restart(broker: &mut Mosquitto, line: &RoughLine, mut ear: Ear, heard: &Arc<Heard>, number: u64) -> Ear {
    let _alone = line.hold();
    ear.catch_up(number);
    broker.restart();
    Ear::listen(broker.port, heard, PATIENCE)
}

#[test]
fn ten_thousand_accepted_messages_arrive_over_kills_cuts_and_a_broker_that_forgets() {
    let clock = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(clock);
    println!("SEED={seed}");
    let mut dice = Dice::new(seed);
    let begun = Instant::now();
    let lines = vec!["max_queued_messages 0", "max_inflight_messages 0"];
    let mut broker = Mosquitto::with(&Setup { lines, ..Setup::default() });
    let line = RoughLine::to(broker.port, seed);
    let (folder, heard) = (tempfile::tempdir().unwrap(), Arc::new(Heard::default()));
    let store = folder.path().join("store");
    let mut ear = Ear::listen(broker.port, &heard, PATIENCE);

    // How many of each life were accepted.
    let mut accepted: HashMap<u64, u64> = HashMap::new();
    let (mut kills, mut restarts, mut sentinel) = (0, 0, 0);
    while accepted.values().sum::<u64>() < WANTED as u64 || kills < KILLS {
        let life = u64::from(kills) + 1;
        let noted = accepted.entry(life).or_default();
        let teller = Teller::start(&store, line.port, life, false, seed);
        if dice.below(6) > 0 {
            teller.until_first(noted);
        }
        if dice.below(3) == 0 {
            teller.hear(Instant::now() + Duration::from_millis(dice.below(500)), noted);
            (restarts, sentinel) = (restarts + 1, sentinel + 1);
            ear = restart(&mut broker, &line, ear, &heard, sentinel);
        }
        teller.hear(Instant::now() + Duration::from_millis(dice.below(1200)), noted);
        teller.kill(noted);
        kills += 1;
        assert!(begun.elapsed() < PATIENCE, "SEED={seed}: {accepted:?} after {kills} kills");
    }
    // One more, on a good line, brings what still waits.
    line.mend();
    drop(line.hold());
    let mut last = Teller::start(&store, line.port, 0, true, seed);
    assert!(last.hear(Instant::now() + PATIENCE, &mut 0), "SEED={seed}: the spool is not empty");
    ear.catch_up(sentinel + 1);

    let (mut ids, mut doubles) = (HashMap::new(), 0);
    heard.until("it all", PATIENCE, |messages| {
        for (_, payload) in messages.iter().filter(|(topic, _)| topic.contains("/ack/told/")) {
            let Stamped { stamp, body } = Stamped::<Told>::read(payload).expect("one of ours");
            let first = ids.entry((body.life, body.n)).or_insert(stamp.message_id);
            assert_eq!(*first, stamp.message_id, "SEED={seed}: a double of {body:?} has an id of its own");
            doubles += 1;
        }
        Some(())
    });
    doubles -= ids.len();
    let missing: Vec<(u64, u64)> = accepted
        .iter()
        .flat_map(|(life, last)| (1..=*last).map(|n| (*life, n)))
        .filter(|key| !ids.contains_key(key))
        .collect();
    let all: u64 = accepted.values().sum();
    assert!(missing.is_empty(), "SEED={seed}: {} of {all} are missing: {missing:?}", missing.len());
    assert_eq!(ids.values().collect::<HashSet<_>>().len(), ids.len(), "each message has an id of its own");
    last.child.wait().unwrap();
    println!(
        "{all} messages accepted, all arrived, {doubles} doubles; {kills} kills, {restarts} brokers, {} cuts, {:.1} s",
        line.cuts(),
        begun.elapsed().as_secs_f32()
    );
}

#[test]
fn twenty_light_devices_connect_report_and_answer_their_group() {
    let lines = vec!["max_queued_messages 0", "max_inflight_messages 0"];
    let broker = Mosquitto::with(&Setup { lines, ..Setup::default() });
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap().store;
    let report = light::fleet(broker.port, 20, 20, PATIENCE, |n| Spool::open(DiskStore::named(&store, n)));
    println!("{report}");
}
