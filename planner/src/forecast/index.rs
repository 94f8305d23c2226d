//! The leaves of an index, into which the entries of rows that moved go.

use crate::forecast::deletion::Entry;
use crate::forecast::leaf::Acted;
use crate::forecast::wal::Wal;
use crate::forecast::{Index, PAGE, Survey};
use crate::page::{LINE_POINTER, max_align};
use crate::sampling::Random;
use crate::window::Tid;

/// Bytes of a leaf for its entries: all but the page's header and `BTPageOpaqueData`.
const ROOM: f64 = (PAGE - 24 - 16) as f64;
/// A row in a posting list (`ItemPointerData`).
const POSTED: f64 = 6.0;
/// What of a leaf stays on the left when its end is split: of the last leaf (`BTREE_DEFAULT_FILLFACTOR`), and of one key
/// (`BTREE_SINGLEVAL_FILLFACTOR`).
const LAST_LEAF: f64 = 0.90;
const ONE_KEY: f64 = 0.96;
/// Entries are merged unless deletion has made so much room (`BLCKSZ / 24` in `_bt_bottomupdel_pass`).
const ENOUGH_ROOM: f64 = 341.0;
/// Pages above the leaves, for each of them.
const ABOVE: f64 = 0.005;

/// What kind an index is.
#[derive(Debug, Clone)]
pub enum Kind {
    /// A B-tree.
    BTree {
        /// Leaves that were sampled.
        leaves: Vec<Leaf>,
        /// How many leaves it has.
        pages: f64,
        /// How many pages are empty, to be used before it grows.
        empty: f64,
        /// Bytes of one entry, aligned.
        entry: usize,
        /// Entries of equal keys can be merged.
        deduplicates: bool,
        /// Most keys are those of several rows.
        shares_keys: bool,
    },
    /// One whose size does not follow the number of row versions, such as BRIN.
    Summary,
    /// Another kind, which is taken to grow like its number of entries.
    Other,
}

/// One leaf of a B-tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Leaf {
    /// Bytes free.
    pub free: usize,
    /// Row versions that it points to.
    pub rows: usize,
    /// It was written since the last checkpoint.
    pub is_imaged: bool,
}

/// How the entries of an index lie in comparison with the rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Order {
    /// In the order of the rows, or the opposite one.
    Rows,
    /// In another order.
    Random,
    /// There are so many different keys, and the entries of each lie in the order of the rows.
    Keys(u64),
}

/// Where an entry belongs: by its key, then by its row's place.
type Place = (u64, u64, u64);

/// New rows of a page are told apart from those that were there by this.
const NEW_ROWS: u64 = 1 << 16;

/// An index that grows.
pub(super) struct Grown<'a> {
    index: &'a Index,
    /// Different keys of the small table, each of as many rows as in the real one.
    keys: u64,
    /// Rows before the first of each page.
    before: Vec<u64>,
    /// Rows of all pages.
    rows: u64,
    leaves: Vec<Acted>,
    /// How many of them there were.
    sampled: usize,
    /// Entries of rows that have moved since the last pass ended.
    dying: Vec<(u64, u64, u64)>,
    /// New entries.
    added: usize,
}

impl<'a> Grown<'a> {
    pub fn new(index: &'a Index, survey: &Survey) -> Self {
        let mut rows = 0;
        let before = survey.pages.iter().map(|page| {
            let before = rows;
            rows += page.live as u64;
            before
        });
        let before = before.collect();
        let scale = f64::from(survey.blocks) / survey.pages.len().max(1) as f64;
        let keys = match index.order {
            Order::Keys(keys) => keys as f64 / scale,
            _ => 1.0,
        };
        let mut grown = Grown {
            index,
            keys: keys.round().max(1.0) as u64,
            before,
            rows,
            leaves: vec![],
            sampled: 0,
            dying: vec![],
            added: 0,
        };
        if let Kind::BTree { leaves, .. } = &index.kind {
            grown.leaves = grown.build(survey, leaves);
            grown.sampled = grown.leaves.len();
        }
        grown
    }

    /// Lays the entries of all rows into leaves like those that were sampled.
    fn build(&self, survey: &Survey, sampled: &[Leaf]) -> Vec<Acted> {
        let pages = survey.pages.iter().enumerate();
        let shares_keys = matches!(
            self.index.kind,
            Kind::BTree {
                shares_keys: true,
                ..
            }
        );
        let mut entries: Vec<Entry> = pages
            .flat_map(|(block, page)| (0..page.live as u64).map(move |row| (block as u64, row)))
            .filter_map(|(block, row)| {
                Some(Entry {
                    key: self.key(block, row)?,
                    block,
                    row,
                    is_merged: shares_keys,
                    is_dead: false,
                })
            })
            .collect();
        entries.sort_unstable_by_key(Entry::place);
        let mut leaves = vec![];
        let mut like = sampled.iter().filter(|leaf| leaf.rows > 0).cycle();
        let mut rest = entries.as_slice();
        while !rest.is_empty()
            && let Some(like) = like.next()
        {
            let rows = like.rows.min(rest.len());
            let (entries, behind) = rest.split_at(rows);
            // The last one is a part of a leaf.
            let share = rows as f64 / like.rows as f64;
            leaves.push(Acted {
                entries: entries.to_vec(),
                used: (ROOM - like.free as f64) * share,
                room: ROOM * share,
                single: 0,
                imaged: like.is_imaged.then_some(0),
            });
            rest = behind;
        }
        leaves
    }

    /// The key of a row, unless the index leaves it out.
    fn key(&self, block: u64, row: u64) -> Option<u64> {
        let number = self.before.get(block as usize)? + row;
        let mut random = Random::new(number);
        if random.next() >= self.index.share {
            return None;
        }
        Some(match self.index.order {
            Order::Rows => number,
            Order::Random => random.bits(),
            Order::Keys(_) => random.bits() % self.keys,
        })
    }

    /// A row gets another entry, which points to `new` instead of `old`.
    pub fn insert(&mut self, old: Tid, new: Tid, wal: &mut Wal) {
        let row = u64::from(old.offset.saturating_sub(1));
        let live = |block: usize| match self.before.get(block + 1) {
            Some(after) => after - self.before[block],
            None => u64::MAX,
        };
        // Line pointers are counted from 1, with gaps; rows without.
        let row = row % live(old.block as usize).max(1);
        let Some(key) = self.key(u64::from(old.block), row) else {
            return;
        };
        self.added += 1;
        let Kind::BTree { entry, .. } = self.index.kind else {
            return;
        };
        if self.leaves.is_empty() {
            return;
        }
        let key = match (self.index.has_column, self.index.order) {
            // NULLs come last, and the values are the same.
            (true, Order::Keys(_)) => 0,
            (true, _) => Random::new(key).bits() / 2,
            (false, _) => key,
        };
        let new = Entry {
            key,
            block: new.block.into(),
            row: NEW_ROWS + u64::from(new.offset),
            is_merged: false,
            is_dead: false,
        };
        let number = self.leaf_of(new.place());
        let leaf = &mut self.leaves[number];
        let used = (PAGE as f64 - leaf.room + leaf.used) as usize;
        let imaged = wal.touches(&mut leaf.imaged, used);
        let bytes = (entry + LINE_POINTER) as f64;
        if leaf.used + bytes > leaf.room {
            self.make_room(number, bytes, wal);
        }
        let number = match self.leaves[number].used + bytes > self.leaves[number].room {
            true => self.split(number, new.place(), wal),
            false => number,
        };
        wal.inserts(entry, imaged);
        let leaf = &mut self.leaves[number];
        let index = leaf
            .entries
            .partition_point(|entry| entry.place() < new.place());
        leaf.entries.insert(index, new);
        leaf.used += bytes;
        leaf.single += 1;
        if !self.index.has_column {
            self.dying.push((key, old.block.into(), row));
        }
    }

    /// How many entries it has got.
    pub fn added(&self) -> usize {
        self.added
    }

    /// From now on, nobody sees the row versions that have moved up to now.
    pub fn settle(&mut self) {
        for place in std::mem::take(&mut self.dying) {
            let number = self.leaf_of(place);
            let Some(leaf) = self.leaves.get_mut(number) else {
                continue;
            };
            let found = leaf.entries.binary_search_by_key(&place, Entry::place);
            if let Ok(index) = found {
                leaf.entries[index].is_dead = true;
            }
        }
    }

    fn leaf_of(&self, place: Place) -> usize {
        let begins_before = |leaf: &Acted| {
            leaf.entries
                .first()
                .is_some_and(|first| first.place() <= place)
        };
        self.leaves.partition_point(begins_before).saturating_sub(1)
    }

    /// Removes or merges entries of a leaf, as `_bt_delete_or_dedup_one_page` does before it is split.
    fn make_room(&mut self, number: usize, wanted: f64, wal: &mut Wal) {
        let Kind::BTree {
            entry,
            deduplicates,
            shares_keys,
            ..
        } = self.index.kind
        else {
            return;
        };
        let alone = (entry + LINE_POINTER) as f64;
        let leaf = &mut self.leaves[number];
        // An entry that differs from the old version's is not taken for one that makes it superfluous.
        if !self.index.has_column {
            leaf.delete(alone, wal);
        }
        if leaf.room - leaf.used >= ENOUGH_ROOM.max(wanted) || !deduplicates || leaf.single == 0 {
            return;
        }
        let shared = match () {
            () if shares_keys => POSTED,
            // Of two entries that share a key, the old version's and the new one's.
            () if !self.index.has_column => {
                (max_align(entry + 2 * POSTED as usize) + LINE_POINTER) as f64 - alone
            }
            () => alone,
        };
        leaf.merge(alone - shared, wal);
    }

    /// Splits a leaf, into one half of which an entry goes (`_bt_findsplitloc`). Returns which.
    fn split(&mut self, number: usize, new: Place, wal: &mut Wal) -> usize {
        let is_last = number + 1 == self.leaves.len();
        let leaf = &mut self.leaves[number];
        let at_end = leaf.entries.last().is_none_or(|last| last.place() < new);
        let one_key = leaf.entries.first().is_some_and(|first| first.key == new.0);
        let stays = match () {
            () if at_end && one_key => ONE_KEY,
            () if at_end && is_last => LAST_LEAF,
            () => 0.5,
        };
        let count = leaf.entries.len();
        let middle = ((count as f64 * stays) as usize).clamp(1, count);
        let right = leaf
            .entries
            .split_off(leaf.between_keys(middle).unwrap_or(middle));
        let moved = leaf.used * right.len() as f64 / count.max(1) as f64;
        leaf.used -= moved;
        let single = leaf.single * right.len() / count.max(1);
        leaf.single -= single;
        let goes_right = right.first().is_none_or(|first| first.place() <= new);
        // The last one may have been a part of a leaf, too small for one entry; what it becomes are leaves.
        leaf.room = ROOM;
        let acted = Acted {
            entries: right,
            used: moved,
            room: ROOM,
            single,
            imaged: wal.imaged(),
        };
        let Kind::BTree { entry, .. } = self.index.kind else {
            return number;
        };
        wal.splits(moved as usize, entry);
        if let Some(next) = self.leaves.get_mut(number + 1) {
            let used = (PAGE as f64 - next.room + next.used) as usize;
            wal.touches(&mut next.imaged, used);
        }
        self.leaves.insert(number + 1, acted);
        number + usize::from(goes_right)
    }

    /// By how many bytes the real index grows, if the table has `scale` times as many rows.
    pub fn growth(&self, scale: f64) -> f64 {
        match &self.index.kind {
            Kind::Summary => 0.0,
            Kind::Other => {
                let added = self.added as f64 / (self.rows as f64 * self.index.share).max(1.0);
                self.index.bytes * added
            }
            Kind::BTree { pages, empty, .. } => {
                let added = (self.leaves.len() - self.sampled) as f64;
                let added = match self.sampled {
                    0 => added * scale,
                    sampled => added * pages / sampled as f64,
                };
                ((added - empty).max(0.0) * (1.0 + ABOVE) * PAGE as f64).max(0.0)
            }
        }
    }
}
