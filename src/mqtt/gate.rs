//! The gate that each command passes before it runs. What it asks (signatures, numbers, roles) is decided
//! elsewhere; this room only brings what came in, in the order of arrival, one at a time.

use super::commands::{Addressed, Refusal};
use crate::domain::Reason;
use crate::domain::command::Command;
use futures_util::future::BoxFuture;

/// Lets commands in, or tells why not.
pub trait Gate: Send + Sync {
    /// The command that may run. When this returns, whatever must be remembered of it is durable: it would
    /// not be let in a second time.
    ///
    /// # Errors
    /// Why it must not run; nothing was done then.
    fn admit<'a>(&'a self, asked: &'a Addressed<'a>) -> BoxFuture<'a, Result<Command, Reason>>;

    /// Hears of what was refused before it came to the gate, to count it and write it down.
    fn turned_away(&self, _refusal: &Refusal) {}
}
