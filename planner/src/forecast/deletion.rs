//! Which entries of a full leaf are deleted before it is split.
//!
//! "Bottom-Up deletion" in PostgreSQL's `src/backend/access/nbtree/README`: the leaf names the pages of the table on which
//! it expects most dead row versions, and a few of those are looked at (`bottomup_sort_and_shrink` and
//! `heap_index_delete_tuples` in `heapam.c`).

use std::collections::BTreeMap;

/// Pages of the table that are looked at, at most (`BOTTOMUP_MAX_NBLOCKS`).
const MOST_BLOCKS: usize = 6;
/// A page that is no further from the one before is as good as the same (`BOTTOMUP_TOLERANCE_NBLOCKS`).
const NEAR: u64 = 3;
/// Fewer promising entries are too few to choose a page by.
const LEAST_PROMISING: usize = 4;
/// Bytes that are to become free (`BLCKSZ / 16` in `_bt_bottomupdel_pass`).
const TARGET: f64 = 512.0;

/// An entry of a leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry {
    pub key: u64,
    /// The place of its row: the block, then what tells rows of a block apart.
    pub block: u64,
    pub row: u64,
    /// It shares a tuple with others of its key.
    pub is_merged: bool,
    /// Nobody can see its row version any more.
    pub is_dead: bool,
}

impl Entry {
    /// What entries are sorted by.
    pub fn place(&self) -> (u64, u64, u64) {
        (self.key, self.block, self.row)
    }
}

#[derive(Debug, Default)]
struct Block {
    number: u64,
    promising: usize,
    entries: usize,
    dead: usize,
}

/// The blocks whose dead entries are deleted. Each entry takes so many bytes.
pub(super) fn blocks(entries: &[Entry], bytes: f64) -> Vec<u64> {
    let blocks = most_promising(entries);
    let mut target = TARGET;
    let mut favorable = favorable(&blocks);
    let mut freed = 0.0;
    let mut visited = vec![];
    for block in &blocks {
        if favorable > 0 {
            favorable -= 1;
        } else {
            target /= 2.0;
        }
        visited.push(block.number);
        freed += block.dead as f64 * bytes;
        if block.dead == 0 || freed >= target {
            break;
        }
    }
    visited
}

fn most_promising(entries: &[Entry]) -> Vec<Block> {
    let mut blocks: BTreeMap<u64, Block> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let has_same_key =
            |other: Option<&Entry>| other.is_some_and(|other| other.key == entry.key);
        let is_duplicate = has_same_key(entries.get(index + 1))
            || index > 0 && has_same_key(entries.get(index - 1));
        let block = blocks.entry(entry.block).or_insert_with(|| Block {
            number: entry.block,
            ..Block::default()
        });
        block.promising += usize::from(is_duplicate && !entry.is_merged);
        block.entries += 1;
        block.dead += usize::from(entry.is_dead);
    }
    let mut blocks: Vec<Block> = blocks.into_values().collect();
    blocks.sort_by_key(|block| {
        let promising = block.promising.max(LEAST_PROMISING).next_power_of_two();
        let entries = block.entries.next_power_of_two();
        (std::cmp::Reverse((promising, entries)), block.number)
    });
    blocks.truncate(MOST_BLOCKS);
    blocks
}

/// How many blocks, from the first, are near each other.
fn favorable(blocks: &[Block]) -> usize {
    let near = blocks
        .windows(2)
        .take_while(|pair| pair[0].number.abs_diff(pair[1].number) <= NEAR);
    (near.count() + 1).min(blocks.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: u64, block: u64, is_dead: bool) -> Entry {
        Entry {
            key,
            block,
            row: key,
            is_merged: false,
            is_dead,
        }
    }

    /// Rows of five pages; nine of each have moved to page 1000, and their old entries are dead.
    fn neighbours() -> Vec<Entry> {
        let mut entries: Vec<Entry> = (0..365)
            .flat_map(|key| {
                let has_moved = key % 73 < 9;
                let new = has_moved.then(|| entry(key, 1000, false));
                [Some(entry(key, key / 73, has_moved)), new]
            })
            .flatten()
            .collect();
        entries.sort_by_key(Entry::place);
        entries
    }

    #[test]
    fn the_page_that_neighbours_moved_to_is_looked_at_first_in_vain() {
        assert_eq!(blocks(&neighbours(), 20.0), [1000]);
    }

    #[test]
    fn once_they_are_merged_the_old_pages_are() {
        let mut entries = neighbours();
        entries.iter_mut().for_each(|entry| entry.is_merged = true);
        // Three of nine entries each are enough.
        assert_eq!(blocks(&entries, 20.0), [0, 1, 2]);
    }

    #[test]
    fn an_empty_leaf_has_nothing_to_delete() {
        assert!(blocks(&[], 20.0).is_empty());
    }
}
