//! `edgewarden status`, `install`, `rollback`: talks to the running agent over its Unix socket.

/// Arguments of `status`.
#[derive(Debug, clap::Args)]
pub struct StatusArgs {}

/// Arguments of `install`.
#[derive(Debug, clap::Args)]
pub struct InstallArgs {}

/// Arguments of `rollback`.
#[derive(Debug, clap::Args)]
pub struct RollbackArgs {}

/// Runs `status`.
pub fn status(_args: StatusArgs) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}

/// Runs `install`.
pub fn install(_args: InstallArgs) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}

/// Runs `rollback`.
pub fn rollback(_args: RollbackArgs) -> anyhow::Result<()> {
    anyhow::bail!("not written yet")
}
