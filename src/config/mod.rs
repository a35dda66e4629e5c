//! The device's configuration: from `agent.toml` and its drop-ins to checked settings.
//!
//! `settings` is what the rest of the agent sees; nothing else reads a configuration file.

pub mod settings;

pub use settings::Settings;
