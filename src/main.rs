//! The `edgewarden` program: arguments, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    edgewarden::cli::main()
}
