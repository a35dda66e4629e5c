//! The starts of each slot (`domain::boot_loop`), kept in the journal.

use crate::domain::boot_loop::Starts;
use crate::domain::deployment::BundleRef;
use crate::domain::{Digest, SlotName};
use crate::sys::blocking::blocking;
use crate::update::journal::Journal;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// What is known of the starts of all slots; every change is written to the journal. A journal that cannot be
/// written costs the count, and never a start.
#[derive(Debug)]
pub(super) struct StartBook {
    journal: Journal,
    slots: Mutex<BTreeMap<SlotName, Starts>>,
}

impl StartBook {
    pub(super) fn new(journal: Journal) -> Self {
        Self { journal, slots: Mutex::default() }
    }

    /// Counts a start of a slot; as [`Starts::begin`], durable when it returns.
    pub(super) async fn begin(&self, slot: &SlotName, ladder: &[&BundleRef], max: u32) -> Option<BundleRef> {
        let (journal, name) = (self.journal.clone(), slot.clone());
        let found = blocking(move || journal.starts(&name)).await.unwrap_or_else(|reason| {
            tracing::error!(%slot, %reason, "the count of starts cannot be read; it begins anew");
            None
        });
        self.lock().insert(slot.clone(), found.unwrap_or_default());
        self.change(slot, |starts| starts.begin(ladder, max).cloned()).await
    }

    /// Whether a bundle is not to serve in a slot.
    pub(super) fn is_blamed(&self, slot: &SlotName, digest: &Digest) -> bool {
        self.lock().get(slot).is_some_and(|starts| starts.is_blamed(digest))
    }

    /// Changes what is known of a slot; durable when it returns.
    pub(super) async fn change<T>(&self, slot: &SlotName, change: impl FnOnce(&mut Starts) -> T) -> T {
        let (result, changed) = {
            let mut slots = self.lock();
            let starts = slots.entry(slot.clone()).or_default();
            let before = starts.clone();
            let result = change(starts);
            (result, (*starts != before).then(|| starts.clone()))
        };
        if let Some(starts) = changed {
            let (journal, name) = (self.journal.clone(), slot.clone());
            if let Err(reason) = blocking(move || journal.record_starts(&name, &starts)).await {
                tracing::error!(%slot, %reason, "the count of starts cannot be written");
            }
        }
        result
    }

    /// Somebody ends the agent: the present start counts against nothing.
    pub(super) async fn ended_on_purpose(&self) {
        let slots: Vec<SlotName> = self.lock().keys().cloned().collect();
        for slot in slots {
            self.change(&slot, Starts::ended_on_purpose).await;
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<SlotName, Starts>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
