//! How far a job has come with one leaf table.

use std::time::Duration;

use pgrx::pg_sys;
pub use planner::team::Counts;

/// What a job is doing with a leaf table, as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Activity {
    /// Its rows are filled.
    #[default]
    Filling,
    /// It is searched for rows that were missed.
    Verifying,
}

impl Activity {
    /// The state of the stored part.
    pub fn state(self) -> &'static str {
        match self {
            Activity::Filling => "filling",
            Activity::Verifying => "verifying",
        }
    }
}

/// The result for a leaf table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Verification of the whole table found no row to fill, and none is NULL.
    Completed,
    /// Rows are NULL still.
    Incomplete,
    /// The leaf was dropped, and the table it belonged to is still there.
    Dropped,
}

impl End {
    /// The state of the stored part.
    pub fn state(self) -> &'static str {
        match self {
            End::Completed => "completed",
            End::Incomplete => "incomplete",
            End::Dropped => "dropped",
        }
    }
}

/// How far a job has come with a leaf table.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Position {
    /// What is being done.
    pub activity: Activity,
    /// The file that the block numbers below refer to; `None` before the job has begun with the table.
    pub file_node: Option<pg_sys::Oid>,
    /// All blocks before this one are done.
    pub next_block: u32,
    /// How many blocks are done, those behind `next_block` included.
    pub blocks_done: u32,
    /// How many blocks there are to be done.
    pub end_block: u32,
    /// Rows found due for filling in the blocks done so far (verifying only).
    pub rows_found: u64,
    /// Rows whose expression is NULL, in the blocks done so far (verifying only).
    pub rows_without_value: u64,
}

/// What is stored of a leaf table at one time.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Where the job is now.
    pub position: Position,
    /// What was done since the last entry.
    pub counts: Counts,
    /// How long that took.
    pub active: Duration,
    /// How long the rest of this activity will take, if that is known.
    pub time_left: Option<Duration>,
    /// The CALL begins with the table.
    pub begins: bool,
    /// What each of several processes has done, as JSON.
    pub processes: Option<String>,
}
