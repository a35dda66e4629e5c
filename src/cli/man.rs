//! `edgewarden man`: a manual page for each command, for packages.

use anyhow::Context;
use clap::CommandFactory;
use std::path::{Path, PathBuf};

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Folder for the pages, made if it is missing
    pub folder: PathBuf,
}

/// Runs the command. The pages carry no date, so that two builds of one source give the same files.
pub fn run(args: Args) -> anyhow::Result<()> {
    let folder = &args.folder;
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let mut cli = super::Cli::command().disable_help_subcommand(true);
    // Gives each command the full name ("edgewarden bundle init") that its page is named by.
    cli.build();
    write(&cli, folder)
}

/// Writes the page of `command` and of all visible commands below it.
fn write(command: &clap::Command, folder: &Path) -> anyhow::Result<()> {
    let name = command.get_display_name().unwrap_or_else(|| command.get_name());
    let path = folder.join(format!("{name}.1"));
    let mut page = Vec::new();
    clap_mangen::Man::new(command.clone())
        .source(concat!("edgewarden ", env!("CARGO_PKG_VERSION")))
        .manual("Edgewarden")
        .render(&mut page)
        .and_then(|()| std::fs::write(&path, page))
        .with_context(|| format!("write {}", path.display()))?;
    command.get_subcommands().filter(|below| !below.is_hide_set()).try_for_each(|below| write(below, folder))
}
