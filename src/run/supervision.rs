//! Who controls a run from outside, and learns what it waits for.

use std::time::Duration;

use crate::error::Error;
use crate::pg::failure::Failure;
use crate::pg::tx::Tx;

/// What a run is to do, unless it is to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Continue.
    Go,
    /// Wait for another order.
    Pause,
}

/// What a run does now, for others to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doing<'a> {
    /// It works.
    Work,
    /// It waits for this, and has done so for some time.
    WaitFor(&'a str, Duration),
    /// It tries again to get what it waits for.
    TryAgain,
    /// As soon as it has the locks, it has PostgreSQL validate a constraint, of which nothing is told meanwhile.
    Validate,
    /// It has done so.
    Validated,
}

/// Where a run takes its orders from, and where it tells what it does.
pub trait Supervision {
    /// What the run is to do; `None` if nobody can be asked now.
    ///
    /// # Errors
    /// The error that ends the run, if it is to end; [`Error::ExtensionDropped`].
    fn order(&self, tx: &Tx) -> Result<Option<Order>, Error>;

    /// Tells what the run does from now on. Returns `false` if that cannot be told now.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    fn note(&self, tx: &Tx, doing: Doing<'_>) -> Result<bool, Error>;

    /// Whether the user is told what the run waits for.
    fn tells(&self) -> bool {
        true
    }

    /// An error of PostgreSQL's with more about what it means for the run, if there is more to tell.
    fn explain(&self, _failure: &Failure) -> Option<Failure> {
        None
    }

    /// Tells the user that the run is paused.
    fn say_paused(&self);
}
