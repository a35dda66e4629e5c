//! How a child ended, for people and as a reason.

use crate::domain::{Reason, ReasonCode};
use crate::process::codec::CodecError;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// For people, one line: `infer belt (pid 4711) was killed by SIGSEGV`.
    pub text: String,
    /// True when it ended by itself with status 0.
    pub clean: bool,
    /// True when this side killed it.
    pub killed: bool,
    /// True when the kernel killed it because memory ran out.
    pub out_of_memory: bool,
}

impl Exit {
    /// The same as a reason: a crash, unless memory ran out or this side killed it (then the caller
    /// knows better).
    pub fn reason(&self) -> Reason {
        let code = if self.out_of_memory { ReasonCode::OutOfMemory } else { ReasonCode::ChildCrashed };
        Reason::new(code, self.text.clone())
    }

    /// In one line.
    pub(super) fn told(
        name: &str,
        status: std::io::Result<ExitStatus>,
        killed: bool,
        garbage: Option<CodecError>,
        memory_ran_out: impl FnOnce() -> bool,
    ) -> Self {
        let mut out_of_memory = false;
        let (how, clean) = match &status {
            Err(e) => (format!("could not be waited for: {e}"), false),
            Ok(status) => match (status.code(), status.signal()) {
                (Some(0), _) => ("ended".to_owned(), true),
                (Some(code), _) => (format!("ended with status {code}; its last log lines tell why"), false),
                (None, Some(signal)) if killed => {
                    (format!("was killed by the agent ({})", signal_name(signal)), false)
                }
                (None, Some(libc::SIGKILL)) if memory_ran_out() => {
                    out_of_memory = true;
                    let remedy = "use a smaller model, or leave it more memory";
                    (format!("was killed by the kernel because memory ran out; {remedy}"), false)
                }
                (None, Some(libc::SIGKILL)) => {
                    ("was killed by SIGKILL, not by the agent and not for lack of memory".to_owned(), false)
                }
                (None, Some(signal)) => (format!("was killed by {}", signal_name(signal)), false),
                (None, None) => (format!("ended: {status}"), false),
            },
        };
        let said =
            garbage.map(|error| format!(" because it said what it should not: {error}")).unwrap_or_default();
        let text = format!("{name} {how}{said}").replace('\n', " ");
        Self { text, clean: clean && said.is_empty(), killed, out_of_memory }
    }
}

fn signal_name(number: i32) -> String {
    let name = match number {
        libc::SIGABRT => "SIGABRT",
        libc::SIGBUS => "SIGBUS",
        libc::SIGFPE => "SIGFPE",
        libc::SIGILL => "SIGILL",
        libc::SIGINT => "SIGINT",
        libc::SIGKILL => "SIGKILL",
        libc::SIGSEGV => "SIGSEGV",
        libc::SIGSYS => "SIGSYS",
        libc::SIGTERM => "SIGTERM",
        libc::SIGTRAP => "SIGTRAP",
        number => return format!("signal {number}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(raw: i32, killed: bool) -> Exit {
        Exit::told("infer belt (pid 7)", Ok(ExitStatus::from_raw(raw)), killed, None, || false)
    }

    #[test]
    fn the_end_of_a_child_is_told_in_one_line() {
        assert_eq!(exit(0, false).text, "infer belt (pid 7) ended");
        assert!(exit(0, false).clean);
        assert_eq!(
            exit(3 << 8, false).text,
            "infer belt (pid 7) ended with status 3; its last log lines tell why"
        );
        assert_eq!(exit(libc::SIGSEGV, false).text, "infer belt (pid 7) was killed by SIGSEGV");
        assert!(exit(libc::SIGKILL, false).text.contains("not by the agent"));
        assert_eq!(exit(libc::SIGKILL, false).reason().code, ReasonCode::ChildCrashed);
        let kernel = Exit::told("x", Ok(ExitStatus::from_raw(libc::SIGKILL)), false, None, || true);
        assert!(kernel.text.contains("memory ran out"), "{}", kernel.text);
        assert_eq!(kernel.reason().code, ReasonCode::OutOfMemory);
        let ours = Exit::told("x", Ok(ExitStatus::from_raw(libc::SIGKILL)), true, None, || true);
        assert_eq!(ours.reason().code, ReasonCode::ChildCrashed, "this side killed it");
        assert_eq!(exit(libc::SIGKILL, true).text, "infer belt (pid 7) was killed by the agent (SIGKILL)");
        let garbage =
            Exit::told("x", Ok(ExitStatus::from_raw(0)), true, Some(CodecError::TooLong(1 << 30)), || false);
        assert!(!garbage.clean && garbage.text.contains("longer than"), "{}", garbage.text);
    }
}
