//! Bytes of WAL, record by record.
//!
//! Sizes are those of PostgreSQL's structures: `xlogrecord.h`, `heapam_xlog.h`, `nbtxlog.h`, and what `log_heap_update` in
//! `heapam.c` leaves out. They have not changed from 15 to 18, but for a few bytes of the records of pruning.

use crate::forecast::PAGE;
use crate::page::max_align;

/// `XLogRecord`, with the short header of the main data.
const RECORD: usize = 24 + 2;
/// `XLogRecordBlockHeader`, `RelFileLocator` and the block number; for a second block of the same file less.
const BLOCK: usize = 4 + 12 + 4;
const SAME_FILE: usize = 4 + 4;
/// `XLogRecordBlockImageHeader`, and the compression header.
const IMAGE: usize = 5 + 2;
/// `xl_heap_update`, `xl_heap_header`, `xl_heap_lock`, `xl_heap_prune`, `xl_btree_insert`, `xl_btree_split`.
const HEAP_UPDATE: usize = 14;
const HEAP_HEADER: usize = 5;
const HEAP_LOCK: usize = 8;
const HEAP_PRUNE: usize = 8;
const BTREE_INSERT: usize = 2;
const BTREE_SPLIT: usize = 10;
/// The length of what the old and the new version have in common, at their beginnings and ends.
const IN_COMMON: usize = 2 + 2;
/// The header of a tuple that is not logged as such (`SizeofHeapTupleHeader`).
const TUPLE_HEADER: usize = 23;
/// Of the bitmap of NULLs and what aligns the data after it, about.
const BITMAP: usize = 3;
/// Each page of WAL begins with this (`XLogPageHeaderData`).
const WAL_PAGE_HEADER: usize = 24;
/// What a batch writes besides: its commit, with the IDs of its subtransactions, and the new version of its job's row.
const BATCH: usize = 600;

/// How WAL is written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Logging {
    /// The table is neither unlogged nor temporary.
    pub is_logged: bool,
    /// `full_page_writes`.
    pub full_page_writes: bool,
    /// How large a full page image is after compression, from 0 to 1.
    pub image_share: f64,
    /// Bytes of WAL from one checkpoint to the next.
    pub checkpoint_bytes: f64,
    /// Whole rows are written for logical decoding, not just what has changed.
    pub whole_rows: bool,
    /// And whole old rows, by the replica identity.
    pub old_rows: bool,
}

/// When a page was last written as a full page image: the number of the checkpoint before, if it was.
pub(super) type Imaged = Option<u32>;

/// The WAL of a table that is so many times as large as the one that is acted out.
#[derive(Debug)]
pub(super) struct Wal {
    logging: Logging,
    scale: f64,
    /// Of the small table.
    pub bytes: f64,
    pub images: f64,
    checkpoint: u32,
    since_checkpoint: f64,
}

impl Wal {
    pub fn new(logging: Logging, scale: f64) -> Self {
        Wal {
            logging,
            scale,
            bytes: 0.0,
            images: 0.0,
            checkpoint: 0,
            since_checkpoint: 0.0,
        }
    }

    /// A page that was written since the last checkpoint, or is new.
    pub fn imaged(&self) -> Imaged {
        Some(self.checkpoint)
    }

    fn add(&mut self, bytes: f64) {
        if !self.logging.is_logged {
            return;
        }
        let bytes = bytes * PAGE as f64 / (PAGE - WAL_PAGE_HEADER) as f64;
        self.bytes += bytes;
        self.since_checkpoint += bytes * self.scale;
        if self.since_checkpoint > self.logging.checkpoint_bytes {
            self.since_checkpoint = 0.0;
            self.checkpoint += 1;
        }
    }

    fn record(&mut self, bytes: usize) {
        self.add(max_align(RECORD + bytes) as f64);
    }

    /// A page is changed, `used` bytes of which are in use. Whether a full page image of it is written.
    pub fn touches(&mut self, page: &mut Imaged, used: usize) -> bool {
        if !self.logging.is_logged || !self.logging.full_page_writes || *page == self.imaged() {
            return false;
        }
        let image = self.logging.image_share * used.min(PAGE) as f64 + IMAGE as f64;
        *page = self.imaged();
        self.images += image;
        self.add(image);
        true
    }

    /// A row is updated on its page; the value takes `value` of its `size` bytes.
    pub fn updates_in_place(&mut self, size: usize, value: usize, imaged: bool) {
        let data = match () {
            () if self.logging.whole_rows => size.saturating_sub(TUPLE_HEADER),
            () if imaged => 0,
            () => IN_COMMON + BITMAP + value,
        };
        self.record(BLOCK + HEAP_UPDATE + HEAP_HEADER + data + self.old_row(size));
    }

    /// A row is locked before it is updated, since `heap_update` lets go of the page meanwhile: the row moves to another one,
    /// or has values out of line.
    pub fn locks(&mut self) {
        self.record(BLOCK + HEAP_LOCK);
    }

    /// A row moves to another page.
    pub fn moves(&mut self, size: usize, imaged: bool) {
        let data = match imaged && !self.logging.whole_rows {
            true => 0,
            false => size.saturating_sub(TUPLE_HEADER),
        };
        self.locks();
        self.record(BLOCK + SAME_FILE + HEAP_UPDATE + HEAP_HEADER + data + self.old_row(size));
    }

    fn old_row(&self, size: usize) -> usize {
        match self.logging.old_rows {
            true => HEAP_HEADER + size.saturating_sub(TUPLE_HEADER),
            false => 0,
        }
    }

    /// A page is pruned: so many line pointers are redirected, others are dead.
    pub fn prunes(&mut self, redirected: usize, dead: usize) {
        self.record(BLOCK + HEAP_PRUNE + 4 * redirected + 2 * dead);
    }

    /// An entry of so many bytes goes into a leaf.
    pub fn inserts(&mut self, entry: usize, imaged: bool) {
        self.record(BLOCK + BTREE_INSERT + if imaged { 0 } else { entry });
    }

    /// A leaf is split; so many bytes go to the new one. Their parent gets an entry, of which a few bytes tell.
    pub fn splits(&mut self, moved: usize, entry: usize) {
        self.record(BLOCK + 2 * SAME_FILE + BTREE_SPLIT + moved + 2 * entry);
        self.record(BLOCK + SAME_FILE + BTREE_INSERT + entry);
    }

    /// Entries of a leaf are removed or merged.
    pub fn tidies(&mut self, entries: usize) {
        self.record(BLOCK + 8 + 2 * entries);
    }

    /// So many batches of the real table end.
    pub fn commits(&mut self, batches: f64) {
        self.add(batches * BATCH as f64 / self.scale);
    }
}
