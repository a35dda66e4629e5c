//! The command line: one file per command, and the only place that prints for people.
//!
//! Answers go to standard output, everything else to standard error. Exit status: 0 good, 1 failed,
//! 2 refused for trust, 64 wrong usage. With `--json` the answer is JSON, and so is an error: one object on
//! standard error with `code`, `message`, `exit_status` and, where there is one, `remedy`.

pub mod apart;
pub mod bench;
pub mod bundle;
pub mod check;
pub mod child;
pub mod completions;
pub mod control;
pub mod demo;
pub mod encrypt;
pub mod exit;
pub mod fleet;
pub mod local;
pub mod log;
pub mod look;
pub mod man;
pub mod predict;
pub mod repo;
pub mod run;
pub mod runtime;
pub mod setup;
pub mod sign_command;
pub mod status;
pub mod ui;

use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};
use exit::Shown;
use std::process::ExitCode;

/// Makes this machine a managed machine-learning device: runs a model on what a camera sees, reports
/// over MQTT, and takes signed models over the air.
#[derive(Debug, Parser)]
#[command(name = "edgewarden", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// The commands, in the order of the help.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the agent (what the systemd unit starts)
    Run(run::Args),
    /// Tell the whole story on this machine: broker, repository, device, updates good and bad
    Demo(Box<demo::Args>),
    /// Set this device up: camera, broker, repository, its own key; writes one drop-in
    Setup(Box<setup::Args>),
    /// Tell what would run here and what is missing, with the remedy
    Check(check::Args),
    /// Ask the running agent how it is
    Status(control::StatusArgs),
    /// Give the running agent a bundle file
    Install(control::InstallArgs),
    /// Have the running agent bring a slot to a release of the repository
    Update(control::UpdateArgs),
    /// Bring a slot back to its previous bundle
    Rollback(control::SlotArgs),
    /// Stop the deployment under way on a slot
    Abort(control::SlotArgs),
    /// Pause a pipeline's source, for all pipelines that look at it
    Pause(control::PipelineArgs),
    /// Let a paused source go on
    Resume(control::PipelineArgs),
    /// Show the newest lines of the running agent's log
    Logs(look::LogsArgs),
    /// Tell who this device is, and blink its light
    Identify(look::IdentifyArgs),
    /// Show who commanded this device what, and whether that log is whole
    Audit(look::AuditArgs),
    /// Run a bundle on pictures and print the answers
    Predict(predict::Args),
    /// Measure a bundle on this machine by provider and number of threads
    Bench(bench::Args),
    /// Make and examine bundles
    #[command(subcommand)]
    Bundle(bundle::Command),
    /// Make and publish to a repository of signed bundles
    #[command(subcommand)]
    Repo(repo::Command),
    /// See and command devices over MQTT, from anywhere
    #[command(subcommand)]
    Fleet(fleet::Command),
    /// Sign a command for a device or a group, to be sent by any MQTT client
    SignCommand(sign_command::Args),
    /// Print the completions of a shell
    Completions(completions::Args),
    /// Write the manual pages, for packages
    #[command(hide = true)]
    Man(man::Args),
    /// A child process of the agent
    #[command(subcommand, hide = true)]
    Child(child::Command),
}

/// Reads the arguments, runs the command, tells the exit status.
pub fn main() -> ExitCode {
    let parsed = Cli::command().try_get_matches().and_then(|matches| {
        let shown = if wants_json(&matches) { Shown::Json } else { Shown::Text };
        Cli::from_arg_matches(&matches).map(|cli| (cli, shown))
    });
    let (cli, shown) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // A line that cannot be read still shows what is wanted.
            let json = std::env::args_os().take_while(|word| word != "--").any(|word| word == "--json");
            if json && error.use_stderr() {
                anstream::eprintln!("{}", exit::usage(&error.to_string()));
            } else {
                let _ = error.print();
            }
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Run(args) => run::run(args),
        Command::Demo(args) => demo::run(*args),
        Command::Setup(args) => setup::run(*args),
        Command::Check(args) => check::run(args),
        Command::Status(args) => control::status(args),
        Command::Install(args) => control::install(args),
        Command::Update(args) => control::update(args),
        Command::Rollback(args) => control::rollback(args),
        Command::Abort(args) => control::abort(args),
        Command::Pause(args) => control::pause(args),
        Command::Resume(args) => control::resume(args),
        Command::Logs(args) => look::logs(args),
        Command::Identify(args) => look::identify(args),
        Command::Audit(args) => look::audit(args),
        Command::Predict(args) => predict::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Bundle(command) => bundle::run(command),
        Command::Repo(command) => repo::run(command),
        Command::Fleet(command) => fleet::run(command),
        Command::SignCommand(args) => sign_command::run(args),
        Command::Completions(args) => completions::run(args),
        Command::Man(args) => man::run(args),
        Command::Child(command) => child::run(command),
    };
    exit::code(result, shown)
}

/// Whether the command, or the one below it, was given `--json`.
fn wants_json(matches: &ArgMatches) -> bool {
    let here = matches.try_get_one::<bool>("json").ok().flatten().is_some_and(|given| *given);
    here || matches.subcommand().is_some_and(|(_, below)| wants_json(below))
}
