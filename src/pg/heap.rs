//! Heap tables and their pages, read as they lie in the buffers.
//!
//! Pages are read under a share lock, as `contrib/pageinspect` and `heapgetpage` do; nothing here writes one.

use std::marker::PhantomData;
use std::ops::Range;
use std::time::Instant;

use pgrx::pg_sys;
use planner::page::{Growth, Page};

use crate::pg::heap_page::{NullBit, RawPage};
use crate::pg::name;
use crate::pg::ring::Ring;
use crate::pg::tx::Tx;
use crate::pg::value::ColumnType;

/// A table, open and locked until the end of the transaction.
pub struct Table<'tx>(pg_sys::Relation, PhantomData<&'tx Tx>);

impl<'tx> Table<'tx> {
    /// Opens the table for UPDATE, waiting for its lock as any UPDATE would; `None` if it no longer exists.
    pub fn open_for_update(_tx: &'tx Tx, oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: try_table_open takes the lock, then looks whether the table exists.
        let relation = unsafe { pg_sys::try_table_open(oid, pg_sys::RowExclusiveLock as i32) };
        (!relation.is_null()).then(|| Table(relation, PhantomData))
    }

    /// Opens the table as a SELECT would, waiting for its lock; `None` if it no longer exists.
    pub fn open_for_reading(_tx: &'tx Tx, oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: as for `open_for_update`.
        let relation = unsafe { pg_sys::try_table_open(oid, pg_sys::AccessShareLock as i32) };
        (!relation.is_null()).then(|| Table(relation, PhantomData))
    }

    /// Its OID.
    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open.
        unsafe { (*self.0).rd_id }
    }

    /// Its access method, unless that is `heap`, whose pages are read here.
    pub fn other_access_method(&self) -> Option<String> {
        // SAFETY: the relation is open, and so its catalog row is cached.
        let method = unsafe { (*(*self.0).rd_rel).relam };
        (method != pg_sys::HEAP_TABLE_AM_OID)
            .then(|| name::of_access_method(method).unwrap_or_default())
    }

    /// PostgreSQL's handle, valid while `self` lives.
    pub fn relation(&self) -> pg_sys::Relation {
        self.0
    }

    /// The number of blocks it has now.
    pub fn blocks(&self) -> u32 {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// The file that holds it; another one after TRUNCATE, VACUUM FULL or a rewrite.
    pub fn file_node(&self) -> pg_sys::Oid {
        // SAFETY: the relation is open, and so its catalog row is cached.
        unsafe { (*(*self.0).rd_rel).relfilenode }
    }

    /// Name of its schema and its own.
    pub fn name(&self) -> (String, String) {
        // SAFETY: the relation is open; the schema exists while a table in it does.
        unsafe {
            let class = &*(*self.0).rd_rel;
            let schema = pg_sys::get_namespace_name(class.relnamespace);
            let schema = if schema.is_null() {
                String::new()
            } else {
                std::ffi::CStr::from_ptr(schema)
                    .to_string_lossy()
                    .into_owned()
            };
            let name = pgrx::name_data_to_str(&class.relname).to_owned();
            (schema, name)
        }
    }

    /// The column of this number, if it is there.
    pub fn column(&self, number: i16) -> Option<Column> {
        // SAFETY: the relation is open, so its descriptor is valid, and the number is checked against it.
        unsafe {
            let descriptor = (*self.0).rd_att;
            if number < 1 || i32::from(number) > (*descriptor).natts {
                return None;
            }
            let attribute = &*attribute(descriptor, number);
            if attribute.attisdropped {
                return None;
            }
            Some(Column {
                number,
                name: attribute.name().to_owned(),
                column_type: ColumnType {
                    oid: attribute.atttypid,
                    modifier: attribute.atttypmod,
                },
                reads_as_missing: attribute.atthasmissing,
            })
        }
    }

    /// Whether row-level security is enabled, no matter for which roles.
    pub fn has_row_security(&self) -> bool {
        // SAFETY: the relation is open, and so its catalog row is cached.
        unsafe { (*(*self.0).rd_rel).relrowsecurity }
    }

    /// Whether an update of this column can be HOT: no index that rules it out uses the column.
    pub fn allows_hot(&self, column: i16) -> bool {
        #[cfg(feature = "pg15")]
        const BLOCKING: pg_sys::IndexAttrBitmapKind::Type =
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_ALL;
        #[cfg(not(feature = "pg15"))]
        const BLOCKING: pg_sys::IndexAttrBitmapKind::Type =
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_HOT_BLOCKING;
        !self.is_in(BLOCKING, column)
    }

    /// Whether an update of this column changes a key that foreign keys of other tables may point to.
    pub fn is_key(&self, column: i16) -> bool {
        self.is_in(pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_KEY, column)
    }

    fn is_in(&self, kind: pg_sys::IndexAttrBitmapKind::Type, column: i16) -> bool {
        let bit = i32::from(column) - pg_sys::FirstLowInvalidHeapAttributeNumber;
        // SAFETY: the relation is open; the set is a copy of ours.
        unsafe {
            let columns = pg_sys::RelationGetIndexAttrBitmap(self.0, kind);
            let found = pg_sys::bms_is_member(bit, columns);
            pg_sys::bms_free(columns);
            found
        }
    }

    /// Prunes one block if PostgreSQL thinks it worth it, then reads what is to be filled on it.
    ///
    /// `growth` is by how much a row grows when it is filled; `key` is what [`Table::is_key`] says of the column.
    pub fn read(
        &self,
        block: u32,
        column: &Column,
        growth: Growth,
        key: bool,
        ring: &Ring,
    ) -> Page {
        // SAFETY: the relation is open and the block exists (the callers compare with `blocks`, and the lock keeps VACUUM
        // from cutting the end off); the buffer is pinned and share-locked while its page is read, and an error within
        // releases both through the transaction.
        unsafe {
            let buffer = self.pruned_buffer(block, ring);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let raw = RawPage::new(buffer);
            let page = raw.unfilled_rows(self.0, block, &column.null_bit(), growth, key);
            pg_sys::UnlockReleaseBuffer(buffer);
            page
        }
    }

    /// Reads which rows of one block are NULL, those that others hold included; writes nothing.
    pub fn look(&self, block: u32, column: &Column, ring: &Ring) -> Page {
        const NO_GROWTH: Growth = Growth { bytes: 0, align: 1 };
        // SAFETY: as in `read`.
        let mut page = unsafe {
            let buffer = self.buffer(block, ring);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = RawPage::new(buffer).unfilled_rows(
                self.0,
                block,
                &column.null_bit(),
                NO_GROWTH,
                true,
            );
            pg_sys::UnlockReleaseBuffer(buffer);
            page
        };
        let busy = std::mem::take(&mut page.busy);
        page.rows
            .extend(busy.into_iter().map(|offset| NO_GROWTH.row(offset, 0)));
        page.rows.sort_unstable_by_key(|row| row.offset);
        page
    }

    /// Writes the free space of these blocks to the free space map, pruning them first, until the time is over. Returns
    /// those that are left.
    ///
    /// This is what VACUUM does after its second pass over a table, so that new row versions land here.
    pub fn record_free_space(
        &self,
        blocks: Range<u32>,
        deadline: Instant,
        ring: &Ring,
    ) -> Range<u32> {
        let end = self.blocks().min(blocks.end);
        let mut next = blocks.start;
        while next < end && (next == blocks.start || Instant::now() < deadline) {
            crate::pg::interrupts::check();
            self.record_free_space_of(next, ring);
            next += 1;
        }
        if blocks.start < next {
            // SAFETY: the relation is open; the range is within it.
            unsafe { pg_sys::FreeSpaceMapVacuumRange(self.0, blocks.start, next) };
        }
        next..end
    }

    fn record_free_space_of(&self, block: u32, ring: &Ring) {
        // SAFETY: as in `read`.
        unsafe {
            let buffer = self.pruned_buffer(block, ring);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = pg_sys::BufferGetPage(buffer);
            // A page of zeroes has just been added by another backend, which has not initialized it yet.
            let is_new = (*(page as *const pg_sys::PageHeaderData)).pd_upper == 0;
            let free = pg_sys::PageGetHeapFreeSpace(page);
            pg_sys::UnlockReleaseBuffer(buffer);
            if !is_new {
                pg_sys::RecordPageWithFreeSpace(self.0, block, free);
            }
        }
    }

    /// # Safety
    /// `block` exists. The buffer returned is pinned and has to be released.
    unsafe fn pruned_buffer(&self, block: u32, ring: &Ring) -> pg_sys::Buffer {
        // SAFETY: the relation is open; pruning wants a pin and no lock.
        unsafe {
            let buffer = self.buffer(block, ring);
            pg_sys::heap_page_prune_opt(self.0, buffer);
            buffer
        }
    }

    /// # Safety
    /// As for `pruned_buffer`.
    pub(super) unsafe fn buffer(&self, block: u32, ring: &Ring) -> pg_sys::Buffer {
        // SAFETY: the relation is open.
        unsafe {
            pg_sys::ReadBufferExtended(
                self.0,
                pg_sys::ForkNumber::MAIN_FORKNUM,
                block,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                ring.strategy(),
            )
        }
    }
}

impl Drop for Table<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open_for_update`; the lock stays until the transaction ends.
            unsafe { pg_sys::table_close(self.0, pg_sys::NoLock as i32) };
        }
    }
}

/// A column, as the table's descriptor has it.
#[derive(Debug, Clone)]
pub struct Column {
    /// Its number, from 1.
    pub number: i16,
    /// Its name.
    pub name: String,
    /// Its type.
    pub column_type: ColumnType,
    /// Rows written before the column was added read as its first default, not as NULL.
    reads_as_missing: bool,
}

impl Column {
    pub(super) fn null_bit(&self) -> NullBit {
        NullBit {
            number: self.number,
            reads_as_missing: self.reads_as_missing,
        }
    }
}

/// # Safety
/// `descriptor` is valid and has at least `number` columns.
unsafe fn attribute(
    descriptor: pg_sys::TupleDesc,
    number: i16,
) -> *const pg_sys::FormData_pg_attribute {
    let index = usize::from(number.unsigned_abs()) - 1;
    #[cfg(any(feature = "pg15", feature = "pg16", feature = "pg17"))]
    // SAFETY: the caller says so; the attributes lie behind the descriptor.
    unsafe {
        (*descriptor).attrs.as_ptr().add(index)
    }
    #[cfg(feature = "pg18")]
    // SAFETY: the caller says so.
    unsafe {
        pg_sys::TupleDescAttr(descriptor, index as i32)
    }
}
