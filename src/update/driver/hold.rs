//! Waits where a deployment must not go on yet: `domain::maintenance` decides, here the clocks are read. A wait
//! holds nothing, may be dropped at any point, and is begun anew by a restart.

use super::report::Reporter;
use super::{Catalog, Host, Shared};
use crate::domain::lifecycle::{Deployment, Origin};
use crate::domain::maintenance::{Connection, Facts, Hold, Metered, Part, Start, Wait, Waiting, wait};
use crate::sys::blocking::blocking;
use crate::sys::connection;
use crate::sys::local_time::LocalTime;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::sleep;

/// How often clock and connection are looked at, at least: both may change at any time.
const LOOK: Duration = Duration::from_secs(10);

/// A deployment, and when it may go on, which an order may change under way.
pub(super) struct Held<H, C> {
    pub(super) shared: Arc<Shared<H, C>>,
    pub(super) deployment: Deployment,
    pub(super) start: watch::Receiver<Start>,
}

impl<H: Host, C: Catalog> Held<H, C> {
    /// Waits until it may go on, and tells so; whether it had to wait at all.
    pub(super) async fn until_it_may(&mut self, part: Part, reporter: &Reporter) -> bool {
        let mut waited = false;
        while let Some((wait, at)) = self.judge(part).await {
            let until = wait.time.and_then(|time| at.after(time));
            let waiting = Waiting { hold: wait.hold, until };
            if !waited {
                let (slot, release) = (&self.deployment.slot, &self.deployment.release);
                tracing::info!(%slot, "{release} {}", waiting.told());
            }
            reporter.waiting(Some(waiting));
            waited = true;
            let next = wait.time.map_or(LOOK, |time| time.min(LOOK));
            tokio::select! {
                () = sleep(next) => {}
                // Closed with the actor, which drops this, too.
                Ok(()) = self.start.changed() => {}
            }
        }
        if waited {
            reporter.waiting(None);
        }
        waited
    }

    /// Ends when it must not go on any more.
    pub(super) async fn until_it_must_not(&self, part: Part) {
        loop {
            sleep(LOOK).await;
            if self.judge(part).await.is_some() {
                return;
            }
        }
    }

    /// Whether so many bytes must wait, and fewer may not have to.
    pub(super) async fn is_too_much(&self, bytes: u64) -> bool {
        let rules = &self.shared.settings.rules;
        let judged = self.judge(Part::Fetch { bytes }).await;
        rules.metered == Metered::Small && judged.is_some_and(|(wait, _)| wait.hold == Hold::Metered)
    }

    async fn judge(&self, part: Part) -> Option<(Wait, LocalTime)> {
        let Shared { settings, catalog, .. } = self.shared.as_ref();
        let rules = &settings.rules;
        let metered = match rules.connection {
            // Nobody needs to know.
            _ if rules.metered == Metered::Always => false,
            Connection::Metered => true,
            Connection::Unmetered => false,
            Connection::Auto => {
                blocking(|| Ok(connection::is_metered(Path::new("/")))).await.unwrap_or(false)
            }
        };
        let at = LocalTime::now();
        let facts = Facts {
            unix: at.unix(),
            local: catalog.is_clock_set().then(|| at.moment()),
            metered,
            remote: self.deployment.origin == Origin::Repository,
            serving: self.deployment.serving.is_some(),
        };
        let start = *self.start.borrow();
        wait(part, rules, &start, &facts).map(|wait| (wait, at))
    }
}
