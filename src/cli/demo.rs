//! `edgewarden demo`: the whole story on this machine, or the training pictures of its models.

use crate::demo::dataset::{self, Dataset};
use crate::inference::source::scene::DENSITY;
use std::path::PathBuf;

/// Arguments.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Seed of the belt that the built-in camera looks at
    #[arg(long, default_value_t = 7, value_name = "N")]
    pub seed: u64,
    /// Write pictures of belts with their truth into a folder, and do nothing else
    #[arg(long, value_name = "DIR")]
    pub dataset: Option<PathBuf>,
    /// Pictures to write
    #[arg(long, default_value_t = 100, value_name = "N", requires = "dataset")]
    pub count: u64,
    /// Percent of the places on the belts that hold a part
    #[arg(long, default_value_t = DENSITY, value_name = "PERCENT", requires = "dataset",
          value_parser = clap::value_parser!(u32).range(0..=100))]
    pub density: u32,
}

/// Runs the command.
pub fn run(args: Args) -> anyhow::Result<()> {
    if let Some(folder) = &args.dataset {
        let set =
            Dataset { count: args.count, seed: args.seed, density: args.density, width: 320, height: 240 };
        return dataset::write(folder, set);
    }
    anyhow::bail!("not written yet")
}
