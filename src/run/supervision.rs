//! Who steers a run from outside, and is told what it waits for.

use crate::error::Error;
use crate::pg::tx::Tx;

/// What a run is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Go on.
    Go,
    /// Wait for another order.
    Pause,
    /// End.
    Cancel,
}

/// Where a run takes its orders from, and where it tells what it waits for.
pub trait Supervision {
    /// What the run is to do; `None` if nobody can be asked now.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    fn order(&self, tx: &Tx) -> Result<Option<Order>, Error>;

    /// Tells what the run waits for from now on, or that it goes on.
    ///
    /// # Errors
    /// [`Error::ExtensionDropped`].
    fn note_wait(&self, tx: &Tx, wait: Option<&str>) -> Result<(), Error>;

    /// The error that ends a cancelled run.
    fn cancelled(&self) -> Error;
}
