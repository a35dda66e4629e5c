//! Setup with a person at a terminal: a pseudo terminal that answers.

use super::{Machine, contents};
use crate::support::device::{PATIENCE, Repository};
use crate::support::wait_until;
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::File;
use std::io::{Read, Write};
use std::process::Child;
use std::sync::{Arc, Mutex};

/// A command at a terminal.
struct Terminal {
    child: Child,
    keys: File,
    screen: Arc<Mutex<String>>,
}

impl Terminal {
    fn run(machine: &Machine, arguments: &[&str]) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&ours).unwrap();
        unlockpt(&ours).unwrap();
        let theirs = ptsname(&ours, Vec::new()).unwrap().into_string().unwrap();
        let theirs = File::options().read(true).write(true).open(theirs).unwrap();
        let ours = File::from(ours);
        let child = machine
            .command(arguments)
            .stdin(theirs.try_clone().unwrap())
            .stdout(theirs.try_clone().unwrap())
            .stderr(theirs)
            .spawn()
            .unwrap();
        let screen = Arc::new(Mutex::new(String::new()));
        let (mut output, seen) = (ours.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // The end of the other side is an error here.
            while let Ok(length @ 1..) = output.read(&mut buffer) {
                seen.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Self { child, keys: ours, screen }
    }

    fn sees(&self, words: &str) {
        wait_until(words, PATIENCE, || self.screen.lock().unwrap().contains(words).then_some(()));
    }

    /// Waits for a question and answers it.
    fn answers(&mut self, question: &str, answer: &str) {
        self.sees(question);
        self.keys.write_all(format!("{answer}\n").as_bytes()).unwrap();
    }

    /// The exit status.
    fn ends(&mut self) -> Option<i32> {
        wait_until("the end of the command", PATIENCE, || self.child.try_wait().unwrap()).code()
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("on the screen:\n{}", self.screen.lock().unwrap());
        }
    }
}

#[test]
fn only_what_is_missing_is_asked() {
    let repository = Repository::with(&["v1"]);
    let machine = Machine::new();
    let first = ["setup", "--device-id", "a", "--camera", "synthetic", "--broker", "none", "--no-check"];
    let mut terminal = Terminal::run(&machine, &first);
    let folder = repository.folder();
    terminal.answers("URL of the repository", folder.to_str().unwrap());
    terminal.answers("root.json (its owner has it", repository.publisher.pinned_root().to_str().unwrap());
    terminal.sees("signs root");
    terminal.sees("For the operator");
    assert_eq!(terminal.ends(), Some(0));
    assert!(!terminal.screen.lock().unwrap().contains("Replace"), "there was nothing to replace");
    let url = machine.written()["repository"]["url"].as_str().unwrap().to_owned();
    assert_eq!(url, format!("file://{}/", folder.display()));

    // A second time: nothing is missing, and what is there is replaced only by a yes.
    let before = contents(&machine.path(""));
    let again = ["setup", "--device-id", "b", "--no-check"];
    let mut terminal = Terminal::run(&machine, &again);
    terminal.sees("- id = \"a\"");
    terminal.answers("Replace", "n");
    assert_eq!(terminal.ends(), Some(1));
    terminal.sees("nothing was changed");
    assert_eq!(contents(&machine.path("")), before);
    let mut terminal = Terminal::run(&machine, &again);
    terminal.answers("Replace", "y");
    assert_eq!(terminal.ends(), Some(0));
    assert_eq!(machine.written()["device"]["id"].as_str(), Some("b"));
    // Nothing to do is nothing to ask.
    assert_eq!(Terminal::run(&machine, &again).ends(), Some(0));
    // Who leaves at a question changes nothing.
    let fresh = Machine::new();
    let before = contents(&fresh.path(""));
    let mut terminal = Terminal::run(&fresh, &first);
    terminal.sees("URL of the repository");
    terminal.keys.write_all(&[4]).unwrap();
    assert_eq!(terminal.ends(), Some(130));
    assert_eq!(contents(&fresh.path("")), before);
}

#[test]
fn what_a_person_does_without_is_not_asked_for_again() {
    let machine = Machine::new();
    let first = ["setup", "--device-id", "a", "--camera", "synthetic", "--broker", "none", "--no-check"];
    let mut terminal = Terminal::run(&machine, &first);
    terminal.answers("URL of the repository", "");
    assert_eq!(terminal.ends(), Some(0));
    let without = machine.written()["setup"]["without"].as_array().unwrap().clone();
    assert_eq!(without, ["broker", "repository"].map(toml::Value::from));

    let mut terminal = Terminal::run(&machine, &["setup", "--no-check"]);
    assert_eq!(terminal.ends(), Some(0), "it asks for nothing");
    terminal.sees("broker: none, as was said before; name one with --broker");
    terminal.sees("repository: none, as was said before");

    let named = ["setup", "--yes", "--broker", "mqtt://localhost:1", "--no-check"];
    assert_eq!(Terminal::run(&machine, &named).ends(), Some(0));
    let written = machine.written();
    assert_eq!(written["mqtt"]["url"].as_str(), Some("mqtt://localhost:1"));
    assert_eq!(written["setup"]["without"].as_array().unwrap().len(), 1);
}
