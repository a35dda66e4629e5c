//! Putting a file together from a delta: a child of its own for each, ended when it takes too long.

use crate::domain::{Reason, ReasonCode};
use crate::process::child::{Event, RebuildChild};
use crate::process::protocol::{FromRebuild, ToRebuild};
use crate::update::deltas::Job;
use std::path::Path;
use std::time::Duration;
use tokio::time::timeout;

/// Any file may take so long.
const LEAST: Duration = Duration::from_secs(60);
/// And so many bytes a second more: a hundredth of what a small machine does.
const PACE: u64 = 1 << 20;
/// After its answer a child ends by itself.
const GRACE: Duration = Duration::from_secs(2);

/// Has a child of the program `exe` do the job.
///
/// # Errors
/// Why there is no file: the child's own words, its crash, or its deadline.
pub async fn rebuild(exe: &Path, job: Job) -> Result<(), Reason> {
    let deadline = LEAST + Duration::from_secs(job.size / PACE);
    within(exe, job, deadline).await
}

async fn within(exe: &Path, job: Job, deadline: Duration) -> Result<(), Reason> {
    let Job { old, delta, out, size } = job;
    let configure = ToRebuild::Configure { old, delta, out, size };
    let mut child = RebuildChild::start_rebuild(exe, "of a file", configure).await?;
    let answered = timeout(deadline, async {
        match child.recv().await {
            Some(Event::Message(FromRebuild::Rebuilt)) => Ok(()),
            Some(Event::Message(FromRebuild::Failed { reason })) => Err(reason),
            Some(Event::Exited(exit)) => Err(exit.reason()),
            None => Err(Reason::new(ReasonCode::ChildCrashed, "the rebuild process has ended")),
        }
    })
    .await;
    let result = answered.unwrap_or_else(|_| {
        child.kill();
        let detail = format!("the rebuild process gave no answer in {} s", deadline.as_secs());
        Err(Reason::new(ReasonCode::ChildHung, detail))
    });
    child.close(GRACE).await;
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// A program that does this in place of a child.
    async fn ended(script: &str) -> Reason {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("fake");
        std::fs::write(&exe, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
        let job = Job { old: None, delta: "d".into(), out: "o".into(), size: 1 };
        within(&exe, job, Duration::from_millis(500)).await.unwrap_err()
    }

    #[tokio::test]
    async fn a_child_that_hangs_or_dies_is_told_and_gone() {
        assert_eq!(ended("exec sleep 600").await.code, ReasonCode::ChildHung);
        assert_eq!(ended("kill -SEGV $$").await.code, ReasonCode::ChildCrashed);
        assert_eq!(ended("exit 1").await.code, ReasonCode::ChildCrashed);
    }
}
