//! What a backfill of a table will cost, by running its planning over sampled pages.
//!
//! The pages that were sampled are a small table: [`Window`](crate::window::Window), [`Flight`](crate::flight::Flight) and
//! [`Recycling`](crate::recycling::Recycling) sweep it as they would the real one, and what PostgreSQL does with each row
//! that they choose is acted out on the pages, on the leaves of the indexes and in the WAL. What comes out is multiplied.

mod clock;
mod deletion;
mod heap;
mod index;
mod leaf;
mod sweep;
mod wal;

use std::ops::AddAssign;
use std::time::Duration;

use crate::page::Page;

pub use index::{Kind, Leaf, Order};
pub use wal::Logging;

/// Bytes of a page.
pub const PAGE: usize = 8192;

/// So many rows are acted out: more would not make it more exact.
const MOST_ROWS: usize = 300_000;

/// A page of a heap, as the sweep would see it, though not pruned.
#[derive(Debug, Clone, Default)]
pub struct Sampled {
    /// Its rows and what is free, before pruning.
    pub page: Page,
    /// How many rows it has, those that are filled included.
    pub live: usize,
    /// Its rows have values out of line (TOAST).
    pub is_toasted: bool,
    /// Bytes of dead row versions that can be pruned.
    pub prunable: usize,
    /// Line pointers that are unused: new row versions need no others then.
    pub unused: usize,
    /// The free space that the free space map has for it.
    pub recorded: usize,
    /// An update found no room on it.
    pub is_full: bool,
    /// It was written since the last checkpoint, so that its next change needs no full page image.
    pub is_imaged: bool,
}

/// An index of a table.
#[derive(Debug, Clone)]
pub struct Index {
    /// What kind it is, and for a B-tree, some of its leaves.
    pub kind: Kind,
    /// Bytes that it has now.
    pub bytes: f64,
    /// The part of the rows that have an entry, from 0 to 1.
    pub share: f64,
    /// How its entries lie in comparison with the rows.
    pub order: Order,
    /// It has the column that is filled, so that the entries of a row before and after are not the same.
    pub has_column: bool,
}

/// How dead row versions come to be removable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Horizon {
    /// As soon as they are dead, or nearly so.
    Moves,
    /// Not before the backfill ends.
    Held,
}

/// All that is known of a table beforehand.
#[derive(Debug, Clone)]
pub struct Survey {
    /// How many blocks it has.
    pub blocks: u32,
    /// The pages that were sampled, in the order of their blocks.
    pub pages: Vec<Sampled>,
    /// HOT updates are possible.
    pub allows_hot: bool,
    /// Tables of fewer blocks are filled in one pass.
    pub least_blocks: u32,
    /// Bytes that new row versions from other pages leave free on a page (by its fillfactor).
    pub kept_free: usize,
    /// Whether dead row versions can be removed.
    pub horizon: Horizon,
    /// Its indexes.
    pub indexes: Vec<Index>,
    /// Bytes by which the value lengthens a row, with its alignment.
    pub value_bytes: usize,
    /// How WAL is written.
    pub logging: Logging,
    /// Most rows of a batch.
    pub batch_size: usize,
    /// Longest time of a batch.
    pub batch_time: Duration,
    /// How many blocks may be in flight.
    pub most_in_flight: u32,
    /// How long the horizon is waited for, in times of the work itself.
    pub patience: f64,
    /// How fast the server works.
    pub speed: Speed,
}

impl Survey {
    /// With only some of the pages.
    fn thinned(&self, every: usize) -> Self {
        Survey {
            pages: self.pages.iter().step_by(every).cloned().collect(),
            ..self.clone()
        }
    }
}

/// How fast the server works.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Speed {
    /// Seconds for each row, apart from its WAL and its entries.
    pub row: f64,
    /// Seconds for each entry that an index gets.
    pub entry: f64,
    /// Seconds for each byte of WAL.
    pub wal_byte: f64,
    /// Seconds for each block that is read.
    pub block: f64,
}

/// What it will cost.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Forecast {
    /// Rows that are filled.
    pub rows: f64,
    /// How many of them by HOT updates.
    pub hot: f64,
    /// Rows that move to other pages.
    pub moved: f64,
    /// Bytes by which the heap grows.
    pub heap_bytes: f64,
    /// Bytes by which each index grows, in the order of the survey.
    pub index_bytes: Vec<f64>,
    /// Bytes of WAL.
    pub wal_bytes: f64,
    /// Full page images among it.
    pub image_bytes: f64,
    /// Transactions that fill rows.
    pub batches: f64,
    /// How long it takes, in seconds.
    pub seconds: f64,
}

impl Forecast {
    /// Runs the backfill over the sampled pages.
    pub fn of(survey: &Survey) -> Self {
        if survey.pages.is_empty() {
            return Forecast {
                index_bytes: vec![0.0; survey.indexes.len()],
                seconds: f64::from(survey.blocks) * survey.speed.block,
                ..Forecast::default()
            };
        }
        let rows: usize = survey.pages.iter().map(|page| page.live).sum();
        let every = rows.div_ceil(MOST_ROWS).max(1);
        match every {
            1 => sweep::Sweeping::new(survey).run(),
            _ => sweep::Sweeping::new(&survey.thinned(every)).run(),
        }
    }
}

impl AddAssign for Forecast {
    fn add_assign(&mut self, other: Self) {
        self.rows += other.rows;
        self.hot += other.hot;
        self.moved += other.moved;
        self.heap_bytes += other.heap_bytes;
        self.index_bytes.extend(other.index_bytes);
        self.wal_bytes += other.wal_bytes;
        self.image_bytes += other.image_bytes;
        self.batches += other.batches;
        self.seconds += other.seconds;
    }
}

#[cfg(test)]
mod tests;
