//! `edgewarden completions`: the completions of a shell, on standard output.

use clap::CommandFactory;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Which shell
    pub shell: clap_complete::Shell,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "edgewarden", &mut script);
    super::ui::print(&String::from_utf8(script)?)
}
