//! What makes signatures: a key file, or any program, so that hardware keys and key services fit.
//!
//! The program is run by `/bin/sh -c`. It finds the bytes to sign on standard input, which is a file, so
//! that `openssl pkeyutl -rawin -in /dev/stdin` can read it, and the role and key id in the environment as
//! `EDGEWARDEN_ROLE` and `EDGEWARDEN_KEYID`. It writes the ed25519 signature (RFC 8032, not of a digest) to
//! standard output: 64 bytes, or 128 hexadecimal digits with white space around them. It may ask its user
//! for a PIN or a touch on the terminal. What it gives is checked before it is used.

use super::keys::Key;
use super::public_key::{PublicKey, short};
use crate::domain::{Reason, ReasonCode};
use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{self, IsTerminal, Read, Seek, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long a program may take unless told otherwise: long enough to find and touch a token.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// Most bytes read of what it writes.
const MAX_OUTPUT: u64 = 1024;

/// A private key, wherever it lies.
#[derive(Debug)]
pub struct Signer {
    public: PublicKey,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Key(Box<Key>),
    Program { command: String, patience: Duration },
}

impl From<Key> for Signer {
    fn from(key: Key) -> Self {
        Self { public: key.public_key(), way: Way::Key(Box::new(key)) }
    }
}

impl Signer {
    /// The private key in a file. Errors: those of [`Key::load`].
    pub fn load(path: &Path) -> Result<Self, Reason> {
        Key::load(path).map(Self::from)
    }

    /// A program that signs by the private key of `public`, within `patience`.
    pub fn program(command: &str, public: PublicKey, patience: Duration) -> Self {
        Self { public, way: Way::Program { command: command.to_owned(), patience } }
    }

    /// The TUF key id.
    pub fn id(&self) -> &str {
        self.public.id()
    }

    /// The public part.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The signature of `bytes` for `role`, 128 hexadecimal digits.
    ///
    /// # Errors
    /// `BadRequest` where the program fails, takes too long, or gives no signature by its key.
    pub(super) fn sign(&self, role: &str, bytes: &[u8]) -> Result<String, Reason> {
        let (command, patience) = match &self.way {
            Way::Key(key) => return Ok(key.sign(bytes)),
            Way::Program { command, patience } => (command, *patience),
        };
        let bad = |what: String| {
            let detail = format!("sign {role} by `{command}`: {what}");
            Reason::new(ReasonCode::BadRequest, detail)
        };
        let said = ask(command, role, self.id(), bytes, patience).map_err(bad)?;
        let signature = signature_of(&said).ok_or_else(|| {
            bad(format!(
                "it wrote {} bytes that are no signature; expected 64 bytes or 128 hexadecimal digits",
                said.len()
            ))
        })?;
        if !self.public.has_signed(bytes, &signature) {
            return Err(bad(format!(
                "its signature is not by key {}; does --signer-key name the public part of its key?",
                short(self.id())
            )));
        }
        Ok(hex::encode(signature))
    }
}

/// Runs the program; gives what it wrote, or why not.
fn ask(command: &str, role: &str, id: &str, bytes: &[u8], patience: Duration) -> Result<Vec<u8>, String> {
    let machine = |error: io::Error| format!("cannot be run: {error}");
    let until = Instant::now() + patience;
    let mut input = tempfile::tempfile().map_err(machine)?;
    input.write_all(bytes).and_then(|()| input.rewind()).map_err(machine)?;
    let mut shell = Command::new("/bin/sh");
    // At a terminal in this process's own group, so that it may ask for a PIN there; else in one that can be
    // ended with all that it has started.
    let apart = !io::stderr().is_terminal();
    if apart {
        shell.process_group(0);
    }
    let child = shell
        .args(["-c", command])
        .env("EDGEWARDEN_ROLE", role)
        .env("EDGEWARDEN_KEYID", id)
        .stdin(Stdio::from(input))
        .stdout(Stdio::piped())
        .spawn()
        .map_err(machine)?;
    let mut child = Program { child, apart };
    let (send, receive) = mpsc::channel();
    if let Some(output) = child.child.stdout.take() {
        // A thread of its own, which may be left behind: a child of the program can hold the pipe open.
        std::thread::spawn(move || {
            let mut said = Vec::new();
            let read = output.take(MAX_OUTPUT + 1).read_to_end(&mut said);
            // Nobody may be waiting any more.
            let _ = send.send(read.map(|_| said));
        });
    }
    let left = until.saturating_duration_since(Instant::now());
    let said = match receive.recv_timeout(left) {
        Ok(Ok(said)) if said.len() as u64 > MAX_OUTPUT => {
            child.end();
            return Err(format!("it wrote more than {MAX_OUTPUT} bytes; it must write the signature alone"));
        }
        Ok(Ok(said)) => said,
        Ok(Err(error)) => {
            child.end();
            return Err(machine(error));
        }
        Err(_) => {
            child.end();
            return Err(late(patience));
        }
    };
    let status = child.ended(until).map_err(machine)?.ok_or_else(|| late(patience))?;
    if !status.success() {
        return Err(format!("it failed ({status}); what it says is on standard error"));
    }
    Ok(said)
}

fn late(patience: Duration) -> String {
    format!("no signature within {} s; try again, or allow more with --signer-timeout", patience.as_secs())
}

/// A program that was started.
struct Program {
    child: Child,
    /// Whether it has a process group of its own.
    apart: bool,
}

impl Program {
    /// Waits for its end; ends it itself, and gives `None`, when the time is over.
    fn ended(&mut self, until: Instant) -> io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= until {
                self.end();
                return Ok(None);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Ends it. It may have ended by itself.
    fn end(&mut self) {
        let group = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw).filter(|_| self.apart);
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn signature_of(said: &[u8]) -> Option<[u8; 64]> {
    if let Ok(raw) = said.try_into() {
        return Some(raw);
    }
    let text = std::str::from_utf8(said).ok()?.trim();
    hex::decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(command: &str, patience: Duration) -> String {
        let public = Key::generate().unwrap().public_key();
        let reason = Signer::program(command, public, patience).sign("targets", b"x").unwrap_err();
        assert_eq!(reason.code, ReasonCode::BadRequest);
        assert!(!reason.detail.contains('\n'), "{reason}");
        reason.detail
    }

    #[test]
    fn a_program_that_gives_its_keys_signature_in_either_form_is_taken() {
        let dir = tempfile::tempdir().unwrap();
        let key = Key::generate().unwrap();
        let hex = key.sign(b"bytes to sign");
        let raw = dir.path().join("raw");
        std::fs::write(&raw, hex::decode(&hex).unwrap()).unwrap();
        let proper = "[ \"$EDGEWARDEN_ROLE\" = targets ] && [ \"$(cat)\" = 'bytes to sign' ]";
        for answer in [format!("cat '{}'", raw.display()), format!("echo ' {hex} '")] {
            let command = format!("{proper} && {answer}");
            let signer = Signer::program(&command, key.public_key(), PATIENCE);
            assert_eq!(signer.sign("targets", b"bytes to sign").unwrap(), hex, "{command}");
            assert_eq!(signer.id(), key.id());
        }
    }

    #[test]
    fn a_program_that_does_not_sign_is_told_with_what_it_did() {
        let other = Key::generate().unwrap().sign(b"x");
        for (command, words) in [
            ("exit 3", "exit status: 3"),
            ("echo abc", "no signature"),
            ("true", "wrote 0 bytes"),
            ("head -c 100000 /dev/zero", "more than 1024 bytes"),
            ("exec nonexistent-program-of-nobody 2>/dev/null", "exit status: 127"),
            (&format!("echo {other}"), "not by key"),
        ] {
            let said = refusal(command, PATIENCE);
            assert!(said.contains(words), "{command}: {said}");
        }
    }

    #[test]
    fn a_program_that_never_ends_is_ended() {
        for command in ["exec sleep 600", "exec >&-; exec sleep 600"] {
            let said = refusal(command, Duration::from_millis(300));
            assert!(said.contains("no signature within"), "{said}");
        }
    }
}
