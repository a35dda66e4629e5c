//! Other programs that give frames or samples: their command line, one run of them, and what they say.
//!
//! Every program of a source is run here and nowhere else: without a shell, watched, and ended with all
//! that it started. What its output means is known by `stream` (pictures) and `sensor` (lines).

mod process;
mod stderr;

pub use process::{End, Process, Read, grace};

use std::fmt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A command line, ready to be run.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct CommandLine {
    /// A name on the search path, or a path.
    pub program: String,
    /// Its arguments.
    pub args: Vec<String>,
    /// Set beside the agent's own environment.
    pub environment: Vec<(&'static str, String)>,
    /// What it reads on standard input, at most a few lines; may hold a password.
    pub stdin: Option<String>,
    /// What must not be shown of its words.
    pub secrets: Vec<String>,
    /// It may start other programs, which must not outlive it.
    pub guarded: bool,
}

impl CommandLine {
    /// A program without arguments.
    pub fn new(program: &str) -> Self {
        Self { program: program.to_owned(), ..Self::default() }
    }

    /// A user's own: the program and its arguments. `None` where no program is named.
    pub fn of_user(words: &[String]) -> Option<Self> {
        let (program, args) = words.split_first()?;
        Some(Self { args: args.to_vec(), guarded: true, ..Self::new(program) })
    }

    /// Adds arguments.
    pub fn args<S: Into<String>>(&mut self, args: impl IntoIterator<Item = S>) -> &mut Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// The program's name without its folder.
    pub fn name(&self) -> String {
        let name = Path::new(&self.program).file_name();
        name.map_or_else(|| self.program.clone(), |name| name.to_string_lossy().into_owned())
    }
}

/// As one would write it in a shell, without secrets.
impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let safe = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@%".contains(c);
        for (index, word) in std::iter::once(&self.program).chain(&self.args).enumerate() {
            let mut word = word.clone();
            for secret in self.secrets.iter().filter(|secret| !secret.is_empty()) {
                word = word.replace(secret.as_str(), "***");
            }
            let space = if index == 0 { "" } else { " " };
            if !word.is_empty() && word.chars().all(safe) {
                write!(f, "{space}{word}")?;
            } else {
                write!(f, "{space}'{}'", word.replace('\'', "'\\''"))?;
            }
        }
        Ok(())
    }
}

impl fmt::Debug for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CommandLine({self})")
    }
}

/// Where a program is: a path as it is, a name on the search path. `None`: nowhere, or not to be run.
pub fn find(program: &str) -> Option<PathBuf> {
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
    };
    if program.contains('/') {
        return Some(PathBuf::from(program)).filter(|path| runs(path));
    }
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).map(|folder| folder.join(program)).find(|path| runs(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_by_name_and_by_path() {
        assert!(find("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(find("/bin/sh"), Some(PathBuf::from("/bin/sh")));
        assert_eq!(find("/etc/passwd"), None, "not to be run");
        assert_eq!(find("/etc"), None);
        assert_eq!(find("no-such-program-anywhere"), None);
    }
}
