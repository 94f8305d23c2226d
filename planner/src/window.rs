//! Windows of consecutive blocks, the passes over each, and when to give up on HOT updates.
//!
//! A window is swept in passes. Between two passes the versions that the first one left dead are pruned, which
//! needs every other transaction's snapshot to have moved on: see [`crate::flight`].

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;

use crate::page::{Page, Taken, Taking};

/// Blocks of a window: 16 MB. Smaller ones have more commits, larger ones leave the cache between two passes.
pub const WINDOW: u32 = 2048;
/// The first 1/4 of a window counts as its beginning.
const BEGINNING: usize = 4;
/// After this many passes over one window, all rows that are left are updated at once.
const MOST_PASSES: u32 = 40;
/// When less than 1/50 of the window's rows are left, another pass costs more than moving them.
const WORTH_A_PASS: usize = 50;
/// The share of a page's rows that the first pass makes room for; it moves at most as many to other pages.
///
/// Each row moved gets a second entry in every index. The leaves of a B-tree are built 90 % full: this many entries fit
/// in without splitting them. `make bench` and `tests/client/growth.rs` measure it.
const ROOM: f64 = 0.11;
/// How many passes a window takes, each of which uses the room that the first one has made.
pub const PASSES: u32 = (1.0 / ROOM) as u32;
/// Like [`ROOM`], for each later pass over a page whose rows grow so much that more of them must leave. Elsewhere a later pass
/// uses the room that was made before it, and moves one row when that is used up.
const ROOM_LATER: f64 = 0.05;
/// Beside a horizon that lags, passes are dear. Rows that were filled are larger, so that each pass leaves less room than it
/// found: the second one makes some more, for this share of a page's rows, of at most so many parts of those that are left.
/// By then B-trees can delete the entries of the rows that the first one moved.
const MORE_ROOM: f64 = 0.115;
const LEFT_PER_MORE_ROOM: f64 = 3.0;
/// A pass moves at least this many rows of a page on average, even of one with few rows: more passes would cost more
/// than the indexes gain.
const LEAST_SHARE: f64 = 0.25;
/// Room is made for at most 1/8 of the rows that are left on a page; more would stay unused in the end.
const LEFT_PER_ROOM: f64 = 8.0;
/// Where many rows must leave, the rows that move are updated in this many rounds over the window.
const ROUNDS: usize = 8;
/// Line pointers that a heap page of 8 kB can hold, rounded up to whole words.
const OFFSET_WORDS: usize = 10;

/// Where a row version lies: block number and offset number, as in `ctid`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tid {
    /// Block number, from 0.
    pub block: u32,
    /// Offset number, from 1.
    pub offset: u16,
}

/// How the pages of a window are swept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// HOT updates are possible: recycle pages, evicting a share of their rows.
    Recycle,
    /// Every new version goes wherever PostgreSQL puts it; one pass does.
    OnePass,
}

/// Offsets of one page, as a set.
#[derive(Debug, Clone, Copy, Default)]
struct Offsets([u32; OFFSET_WORDS]);

impl Offsets {
    fn insert(&mut self, offset: u16) {
        if let Some(word) = self.0.get_mut(usize::from(offset / 32)) {
            *word |= 1 << (offset % 32);
        }
    }

    fn contains(&self, offset: u16) -> bool {
        self.0
            .get(usize::from(offset / 32))
            .is_some_and(|word| word & (1 << (offset % 32)) != 0)
    }
}

/// One window, being swept.
///
/// A row that is still NULL after a statement was to fill it, because of the filter or a NULL result, is remembered and
/// not tried again within this window.
#[derive(Debug)]
pub struct Window {
    pages: Vec<Visited>,
    sweep: Sweep,
    pass: u32,
    cursor: usize,
    /// Rows that the first pass saw.
    rows: usize,
    /// Rows that this pass left for the next.
    left: usize,
    /// Rows that were tried up to now, and before this pass.
    tried: usize,
    tried_before: usize,
    /// How many of them the last pass tried.
    tried_last: usize,
    /// The second pass makes more room.
    makes_more_room: bool,
    /// How many rows may still be moved for the pages that this pass has read; fractions add up from page to page.
    due: f64,
    /// Rows that were chosen and not yet returned.
    queue: VecDeque<Tid>,
    /// Rows of this pass that will move to other pages. They are queued once all blocks were read.
    moving: Vec<Tid>,
    /// Rows that must leave their pages after this pass, because filled rows are larger.
    crowded: usize,
    /// After some pass, most of the rows that must leave had not left yet.
    is_crowded: bool,
    busy: BTreeSet<Tid>,
    /// The only rows that this window fills, unless it fills all.
    only: Option<BTreeSet<Tid>>,
}

/// What a window remembers of one page.
#[derive(Debug)]
struct Visited {
    block: u32,
    /// Rows that the first pass saw.
    rows: usize,
    tried: Offsets,
    left: bool,
}

impl Window {
    /// A window over these blocks.
    pub fn new(blocks: Range<u32>, sweep: Sweep) -> Self {
        Self::of_blocks(blocks, sweep)
    }

    /// A window over `blocks`, which are in ascending order.
    fn of_blocks(blocks: impl IntoIterator<Item = u32>, sweep: Sweep) -> Self {
        let visited = |block| Visited {
            block,
            rows: 0,
            tried: Offsets::default(),
            left: true,
        };
        Window {
            pages: blocks.into_iter().map(visited).collect(),
            sweep,
            pass: 0,
            cursor: 0,
            rows: 0,
            left: 0,
            tried: 0,
            tried_before: 0,
            tried_last: 0,
            makes_more_room: false,
            due: 0.0,
            queue: VecDeque::new(),
            moving: vec![],
            crowded: 0,
            is_crowded: false,
            busy: BTreeSet::new(),
            only: None,
        }
    }

    /// A window over the blocks of these rows that fills only them, in one pass.
    pub fn of_rows(rows: &[Tid]) -> Self {
        let only: BTreeSet<Tid> = rows.iter().copied().collect();
        let mut blocks: Vec<u32> = only.iter().map(|tid| tid.block).collect();
        blocks.dedup();
        Window {
            only: Some(only),
            ..Window::of_blocks(blocks, Sweep::OnePass)
        }
    }

    /// How many blocks it has.
    pub fn blocks(&self) -> usize {
        self.pages.len()
    }

    /// The next block to look at in this pass, or `None` when all were; pages without rows to fill are passed over.
    pub fn next_block(&mut self) -> Option<u32> {
        let Some(skipped) = self.pages[self.cursor..].iter().position(|page| page.left) else {
            self.queue_moving();
            return None;
        };
        let page = &mut self.pages[self.cursor + skipped];
        self.cursor += skipped + 1;
        page.left = false;
        Some(page.block)
    }

    /// How many rows were chosen and not yet returned by [`Window::next_rows`].
    pub fn queued(&self) -> usize {
        self.queue.len()
    }

    /// The next rows to be filled with one statement, at most `most` of those that were chosen.
    pub fn next_rows(&mut self, most: usize) -> Vec<Tid> {
        self.queue.drain(..most.min(self.queue.len())).collect()
    }

    /// Puts back rows that were not tried after all; they are the next ones again.
    pub fn put_back(&mut self, tids: Vec<Tid>) {
        for tid in tids.into_iter().rev() {
            self.queue.push_front(tid);
        }
    }

    /// How many rows are still to be tried again after the last pass.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Chooses the rows of `page`, which lies at `block`, to be filled in this pass.
    pub fn choose(&mut self, block: u32, mut page: Page) {
        let pass = self.pass;
        if let Some(only) = &self.only {
            page.rows.retain(|row| {
                only.contains(&Tid {
                    block,
                    offset: row.offset,
                })
            });
            page.busy
                .retain(|&offset| only.contains(&Tid { block, offset }));
        }
        let Some(visited) = self.page_mut(block) else {
            return;
        };
        page.rows.retain(|row| !visited.tried.contains(row.offset));
        if pass == 0 {
            visited.rows = page.rows.len();
        }
        let rows = visited.rows;
        let taken = self.take(&page, rows);
        let left = page.rows.len() - taken.rows;
        if let Some(visited) = self.page_mut(block) {
            visited.left |= left > 0;
        }
        self.left += left;
        if pass == 0 {
            self.rows += page.rows.len();
        }
        let tid = |offset| Tid { block, offset };
        self.busy.extend(page.busy.into_iter().map(tid));
        let (staying, moving) = page.rows[..taken.rows].split_at(taken.rows - taken.evicted);
        self.queue.extend(staying.iter().map(|row| tid(row.offset)));
        self.moving.extend(moving.iter().map(|row| tid(row.offset)));
    }

    /// Decides which rows of a page to take; `rows` is how many the first pass saw on it.
    ///
    /// Of pages with few rows, only some have a row moved in this pass, and others in the next.
    fn take(&mut self, page: &Page, rows: usize) -> Taken {
        if self.sweep == Sweep::OnePass {
            return page.take(Taking::Everything);
        }
        let crowded = page.crowded_out();
        let share = self.share(rows as f64, crowded as f64);
        self.due = (self.due + share).min(share + 1.0);
        let room = match crowded {
            0 if self.pass == 1 && self.makes_more_room => {
                let most = page.rows.len() as f64 / LEFT_PER_MORE_ROOM;
                (rows as f64 * MORE_ROOM).min(most).round() as usize
            }
            0 if self.pass > 0 => 1,
            _ => share.min(page.rows.len() as f64 / LEFT_PER_ROOM).round() as usize,
        };
        let taken = page.take(Taking::Recycle {
            room: room.max(1),
            evict: self.due as usize,
        });
        self.crowded += crowded.saturating_sub(taken.evicted);
        self.due -= taken.evicted as f64;
        taken
    }

    /// How many rows of a page this pass makes room for. The first pass saw `rows` on it; `crowded` must leave it
    /// because filled rows are larger.
    fn share(&self, rows: f64, crowded: f64) -> f64 {
        match self.pass {
            // A whole row, so that no later pass need move another.
            0 if rows * ROOM > 1.0 && crowded < rows * ROOM + 1.0 => (rows * ROOM).ceil(),
            0 => (rows * ROOM).max(LEAST_SHARE),
            _ => (rows * ROOM_LATER).max(LEAST_SHARE),
        }
    }

    /// Queues the rows of this pass that move to other pages.
    ///
    /// If most of the rows that must leave are left for later passes, neighbouring rows are placed far apart in this
    /// order, so that they do not end up together on one new page. Before a B-tree splits a leaf, it looks for dead
    /// entries, on few pages of the table: those that many entries of the leaf point to. These pages should be the old
    /// ones ("Bottom-Up deletion" in PostgreSQL's `src/backend/access/nbtree/README`, and `bottomup_sort_and_shrink` in
    /// `heapam.c`). Otherwise the leaves have room for all entries, and keeping neighbours together is faster.
    fn queue_moving(&mut self) {
        let moving = std::mem::take(&mut self.moving);
        self.is_crowded |= std::mem::take(&mut self.crowded) > moving.len();
        let rounds = if self.is_crowded { ROUNDS } else { 1 };
        let in_rounds = (0..rounds).flat_map(|round| moving.iter().skip(round).step_by(rounds));
        self.queue.extend(in_rounds.copied());
    }

    /// Records that a statement has tried to fill these rows and succeeded.
    pub fn tried(&mut self, tids: &[Tid]) {
        self.tried += tids.len();
        for tid in tids {
            if let Some(page) = self.page_mut(tid.block) {
                page.tried.insert(tid.offset);
            }
        }
    }

    /// Records that the statement for these rows was undone: they come up again in the next pass. A row that was alone
    /// in its statement is known to be held, and counts as busy.
    pub fn undone(&mut self, tids: &[Tid]) {
        if let [tid] = tids {
            self.tried(tids);
            self.busy.insert(*tid);
            return;
        }
        self.changed(tids);
    }

    /// Records that these rows were changed since their pages were read. The next pass reads those pages again.
    pub fn changed(&mut self, tids: &[Tid]) {
        self.left += tids.len();
        for tid in tids {
            if let Some(page) = self.page_mut(tid.block) {
                page.left = true;
            }
        }
    }

    /// Gives up on HOT updates in this window.
    pub fn give_up_recycling(&mut self) {
        self.sweep = Sweep::OnePass;
    }

    /// Whether an earlier pass has made room for updates on the pages of this one.
    pub fn has_made_room(&self) -> bool {
        self.sweep == Sweep::Recycle && self.pass > 0
    }

    /// Whether this pass is at the beginning of the window still.
    pub fn is_at_beginning(&self) -> bool {
        self.cursor < self.pages.len() / BEGINNING
    }

    /// Whether the first pass made the room that this one uses. Later passes use what this one leaves.
    pub fn is_second_pass(&self) -> bool {
        self.pass == 1
    }

    /// Ends the pass. Returns `true` when another one is needed for rows that were left.
    pub fn next_pass(&mut self) -> bool {
        if self.left == 0 || self.pass >= MOST_PASSES {
            return false;
        }
        if self.left * WORTH_A_PASS < self.rows || self.pass + 2 > MOST_PASSES {
            self.give_up_recycling();
        }
        self.pass += 1;
        self.cursor = 0;
        self.left = 0;
        self.tried_last = self.tried - self.tried_before;
        self.tried_before = self.tried;
        true
    }

    /// The share of the window's work that is done, from 0 to 1.
    pub fn done(&self) -> f64 {
        if self.rows == 0 {
            return self.cursor as f64 / self.pages.len().max(1) as f64;
        }
        let done = (self.tried as f64 / self.rows as f64).min(1.0);
        if self.pass == 0 {
            // Rows on pages not looked at yet are not counted yet.
            done * self.cursor as f64 / self.pages.len().max(1) as f64
        } else {
            done
        }
    }

    /// How many more passes it takes, if each does as much as the last one.
    pub fn passes_left(&self) -> u32 {
        let left = self.rows.saturating_sub(self.tried) as f64;
        (left / self.tried_last.max(1) as f64).ceil() as u32
    }

    /// Makes more room, by moving more rows, so that fewer passes do.
    pub fn make_more_room(&mut self) {
        self.makes_more_room = true;
    }

    /// The rows that other transactions held when a pass came by.
    pub fn into_busy(self) -> Vec<Tid> {
        self.busy.into_iter().collect()
    }

    fn page_mut(&mut self, block: u32) -> Option<&mut Visited> {
        let index = self.pages.binary_search_by_key(&block, |page| page.block);
        self.pages.get_mut(index.ok()?)
    }
}

#[cfg(test)]
mod tests;
