//! The time that the work takes.

use std::time::Duration;

use crate::forecast::Speed;

/// The work that is done on the real table.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Work {
    pub rows: f64,
    pub entries: f64,
    pub wal_bytes: f64,
    pub blocks: f64,
}

impl Speed {
    /// How long it takes, in seconds.
    pub(super) fn seconds(&self, work: Work) -> f64 {
        work.rows * self.row
            + work.entries * self.entry
            + work.wal_bytes * self.wal_byte
            + work.blocks * self.block
    }

    pub(super) fn time(&self, work: Work) -> Duration {
        Duration::try_from_secs_f64(self.seconds(work)).unwrap_or(Duration::MAX)
    }

    /// How many rows of those are filled in this time.
    pub(super) fn rows_in(&self, time: Duration, work: Work) -> usize {
        let seconds = self.seconds(work);
        match seconds > 0.0 {
            true => (work.rows * time.as_secs_f64() / seconds) as usize,
            false => usize::MAX,
        }
    }
}
