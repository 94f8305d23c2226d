//! One leaf of an index: what it holds while entries are added, deleted and merged.

use crate::forecast::deletion::{self, Entry};
use crate::forecast::wal::{Imaged, Wal};

/// A leaf that is acted out.
#[derive(Debug, Clone)]
pub(super) struct Acted {
    pub entries: Vec<Entry>,
    /// Bytes in use, and in all.
    pub used: f64,
    pub room: f64,
    /// Entries that were added and share theirs with no other.
    pub single: usize,
    pub imaged: Imaged,
}

impl Acted {
    /// Where a key ends, next to that index, if the leaf has several keys of several rows ("many duplicates" strategy in
    /// `nbtsplitloc.c`).
    pub fn between_keys(&self, index: usize) -> Option<usize> {
        let ends = |pair: &[Entry]| pair[0].key != pair[1].key;
        let pairs = self.entries.windows(2).enumerate();
        let ends: Vec<usize> = pairs
            .filter(|(_, pair)| ends(pair))
            .map(|(at, _)| at + 1)
            .collect();
        let are_few = ends.len() < self.entries.len() / 8;
        let nearest = ends.into_iter().min_by_key(|end| end.abs_diff(index));
        nearest.filter(|_| are_few)
    }

    /// Deletes entries of dead row versions, if it finds any.
    pub fn delete(&mut self, bytes: f64, wal: &mut Wal) {
        let blocks = deletion::blocks(&self.entries, bytes);
        let goes = |entry: &Entry| entry.is_dead && blocks.contains(&entry.block);
        let single = self
            .entries
            .iter()
            .filter(|entry| goes(entry) && !entry.is_merged)
            .count();
        let before = self.entries.len();
        let each = self.used / before.max(1) as f64;
        self.entries.retain(|entry| !goes(entry));
        let deleted = before - self.entries.len();
        if deleted > 0 {
            self.used -= each * deleted as f64;
            self.single = self.single.saturating_sub(single);
            wal.tidies(deleted);
        }
    }

    /// Merges entries of the same key; each that was alone gives back so many bytes.
    pub fn merge(&mut self, saved: f64, wal: &mut Wal) {
        self.used -= saved * self.single as f64;
        wal.tidies(2 * self.single);
        self.single = 0;
        for index in 1..self.entries.len() {
            if self.entries[index - 1].key == self.entries[index].key {
                self.entries[index - 1].is_merged = true;
                self.entries[index].is_merged = true;
            }
        }
    }
}
