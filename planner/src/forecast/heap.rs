//! The sampled pages, on which PostgreSQL's part of the updates is acted out.

use crate::forecast::wal::{Imaged, Wal};
use crate::forecast::{Horizon, PAGE, Sampled, Survey};
use crate::page::{LINE_POINTER, Page, Row};
use crate::window::Tid;

/// Bytes of an empty page: all but its header.
const EMPTY: usize = PAGE - 24;
/// Line pointers of an empty page.
const POINTERS: usize = 291;
/// The unit in which the free space map counts (`FSM_CAT_STEP`).
const CATEGORY: usize = 32;
/// A page is pruned if less than a tenth of it is free (`heap_page_prune_opt`).
const ROOMY: usize = PAGE / 10;

/// Where a new row version went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Went {
    /// It stays on its page.
    Stayed(Tid),
    /// To another page.
    Moved(Tid),
}

/// The small table that the sampled pages are.
pub(super) struct Heap {
    pages: Vec<Acted>,
    /// How many of them there were.
    sampled: usize,
    kept_free: usize,
    horizon: Horizon,
    value: usize,
    /// The page that the last row moved to.
    target: Option<usize>,
    /// Where the free space map is searched from.
    next_slot: usize,
}

#[derive(Debug, Clone)]
struct Acted {
    page: Page,
    unused: usize,
    /// Dead versions that were there before, and those of rows that stayed or moved since the page was pruned.
    prunable: usize,
    dead: usize,
    stayed: usize,
    moved: usize,
    recorded: usize,
    is_full: bool,
    is_toasted: bool,
    imaged: Imaged,
}

impl Acted {
    fn sampled(sampled: &Sampled) -> Self {
        Acted {
            page: sampled.page.clone(),
            unused: sampled.unused,
            prunable: sampled.prunable,
            dead: 0,
            stayed: 0,
            moved: 0,
            recorded: sampled.recorded,
            is_full: sampled.is_full,
            is_toasted: sampled.is_toasted,
            imaged: sampled.is_imaged.then_some(0),
        }
    }

    fn new(imaged: Imaged) -> Self {
        Acted {
            page: Page {
                free: EMPTY - LINE_POINTER,
                line_pointers: POINTERS,
                ..Page::default()
            },
            unused: 0,
            prunable: 0,
            dead: 0,
            stayed: 0,
            moved: 0,
            recorded: 0,
            is_full: false,
            is_toasted: false,
            imaged,
        }
    }

    /// As `PageGetHeapFreeSpace` tells it.
    fn free(&self) -> usize {
        match self.page.line_pointers {
            0 => 0,
            _ => self.page.free,
        }
    }

    fn used(&self) -> usize {
        PAGE.saturating_sub(self.page.free + LINE_POINTER)
    }

    /// Puts a row version of this size on it. Returns its offset.
    fn put(&mut self, size: usize) -> u16 {
        let pointer = if self.unused > 0 { 0 } else { LINE_POINTER };
        self.unused = self.unused.saturating_sub(1);
        self.page.line_pointers -= 1;
        self.page.free = self.page.free.saturating_sub(size + pointer);
        (POINTERS - self.page.line_pointers) as u16
    }
}

impl Heap {
    pub fn new(survey: &Survey) -> Self {
        Heap {
            pages: survey.pages.iter().map(Acted::sampled).collect(),
            sampled: survey.pages.len(),
            kept_free: survey.kept_free,
            horizon: survey.horizon,
            value: survey.value_bytes,
            target: None,
            next_slot: 0,
        }
    }

    /// How many pages were added.
    pub fn added(&self) -> usize {
        self.pages.len() - self.sampled
    }

    /// Prunes a page if PostgreSQL would, and reads it.
    pub fn read(&mut self, block: u32, wal: &mut Wal) -> Page {
        let page = &mut self.pages[block as usize];
        let dead = match self.horizon {
            Horizon::Moves => page.dead,
            Horizon::Held => 0,
        };
        let is_wanted = page.is_full || page.free() < self.kept_free.max(ROOMY);
        if page.prunable + dead > 0 && is_wanted {
            page.page.free += page.prunable + dead;
            page.is_full = false;
            wal.touches(&mut page.imaged, PAGE.saturating_sub(page.page.free));
            wal.prunes(page.stayed, page.moved + usize::from(page.prunable > 0));
            (page.prunable, page.dead) = (0, page.dead - dead);
            (page.stayed, page.moved) = (0, 0);
        }
        Page {
            free: page.free(),
            ..page.page.clone()
        }
    }

    /// Writes the free space of a page to the free space map.
    pub fn record(&mut self, block: u32, wal: &mut Wal) {
        self.read(block, wal);
        let page = &mut self.pages[block as usize];
        page.recorded = page.free();
    }

    /// Updates the row at this place; `None` if there is none.
    pub fn update(&mut self, tid: Tid, wal: &mut Wal) -> Option<Went> {
        let page = &mut self.pages[tid.block as usize];
        let found = page
            .page
            .rows
            .binary_search_by_key(&tid.offset, |row| row.offset);
        let row = page.page.rows.remove(found.ok()?);
        page.dead += row.size;
        let used = page.used();
        let imaged = wal.touches(&mut page.imaged, used);
        if row.filled_size <= page.free() {
            page.stayed += 1;
            let offset = page.put(row.filled_size);
            if page.is_toasted {
                wal.locks();
            }
            wal.updates_in_place(row.filled_size, self.value, imaged);
            let block = tid.block;
            return Some(Went::Stayed(Tid { block, offset }));
        }
        page.moved += 1;
        page.is_full = true;
        Some(Went::Moved(self.place(row, tid.block as usize, wal)))
    }

    /// Finds a page for a row that leaves `from`, as `RelationGetBufferForTuple` does.
    fn place(&mut self, row: Row, from: usize, wal: &mut Wal) -> Tid {
        let size = row.filled_size;
        let wanted = (size + self.kept_free).min(EMPTY - LINE_POINTER);
        let mut candidate = self.target.or_else(|| self.search(wanted));
        let mut tries = 0;
        let block = loop {
            match candidate {
                Some(block) if block != from && self.pages[block].free() >= wanted => break block,
                // The map was wrong, or the page has been filled.
                Some(block) if tries < self.pages.len() => {
                    tries += 1;
                    self.pages[block].recorded = match block == from {
                        true => 0,
                        false => self.pages[block].free(),
                    };
                    candidate = self.search(wanted);
                }
                _ => {
                    self.pages.push(Acted::new(wal.imaged()));
                    break self.pages.len() - 1;
                }
            }
        };
        self.target = Some(block);
        let page = &mut self.pages[block];
        let used = page.used();
        let imaged = wal.touches(&mut page.imaged, used);
        let offset = page.put(size);
        wal.moves(size, imaged);
        Tid {
            block: block as u32,
            offset,
        }
    }

    /// The next page that has so much room by the free space map.
    fn search(&mut self, wanted: usize) -> Option<usize> {
        let category = wanted.div_ceil(CATEGORY);
        let has_room = |page: &Acted| page.recorded / CATEGORY >= category;
        let (before, after) = self.pages.split_at(self.next_slot.min(self.pages.len()));
        let found = match after.iter().position(has_room) {
            Some(index) => before.len() + index,
            None => before.iter().position(has_room)?,
        };
        self.next_slot = found + 1;
        Some(found)
    }
}
