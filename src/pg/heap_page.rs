//! One page of a heap table, read as it lies in its buffer, as `contrib/pageinspect` and `heapgetpage` do.

use pgrx::pg_sys;
use planner::page::{Growth, Page, max_align};
use planner::window::Tid;

use crate::pg::tid;

/// How a row tells whether a column is NULL.
#[derive(Debug, Clone, Copy)]
pub(super) struct NullBit {
    /// The number of the column, from 1.
    pub number: i16,
    /// Rows written before the column was added read as its first default, not as NULL.
    pub reads_as_missing: bool,
}

/// A heap page in a buffer that is pinned and share-locked.
pub(super) struct RawPage {
    pub(super) buffer: pg_sys::Buffer,
    pub(super) page: pg_sys::Page,
}

/// What can be found out about a row version without waiting.
pub(super) enum State {
    Free,
    Busy,
    Gone,
}

pub(super) const LP_NORMAL: u32 = 1;
pub(super) const LP_UNUSED: u32 = 0;

impl RawPage {
    /// # Safety
    /// The buffer is pinned and share-locked for as long as the value lives.
    pub unsafe fn new(buffer: pg_sys::Buffer) -> Self {
        RawPage {
            buffer,
            // SAFETY: the caller says so.
            page: unsafe { pg_sys::BufferGetPage(buffer) },
        }
    }

    /// # Safety
    /// As for `new`; `relation` is the one that the buffer belongs to.
    pub unsafe fn unfilled_rows(
        &self,
        relation: pg_sys::Relation,
        block: u32,
        column: &NullBit,
        growth: Growth,
        key: bool,
    ) -> Page {
        let mut result = Page::default();
        // SAFETY: the page stays as it is under the share lock, but for hint bits; line pointers are read up to the
        // page's own count, and tuples only through those that are in use.
        unsafe {
            result.free = pg_sys::PageGetHeapFreeSpace(self.page);
            let pointers = self.line_pointers();
            let mut unused = 0;
            for (index, pointer) in pointers.iter().enumerate() {
                match pointer.lp_flags() {
                    LP_NORMAL => {}
                    LP_UNUSED => {
                        unused += 1;
                        continue;
                    }
                    _ => continue,
                }
                let header = self.page.add(pointer.lp_off() as usize) as pg_sys::HeapTupleHeader;
                if !is_null(header, column) {
                    continue;
                }
                let offset = index as u16 + 1;
                let length = pointer.lp_len();
                match self.state(relation, header, length, Tid { block, offset }, key) {
                    State::Free => {
                        result.rows.push(growth.row(offset, length as usize));
                        result.absent += usize::from(lacks(header, column));
                    }
                    State::Busy => result.busy.push(offset),
                    State::Gone => {}
                }
            }
            result.line_pointers =
                most_line_pointers() - pointers.len().min(most_line_pointers()) + unused;
        }
        result
    }

    /// # Safety
    /// As for `new`.
    pub(super) unsafe fn line_pointers(&self) -> &[pg_sys::ItemIdData] {
        // SAFETY: the array of line pointers begins behind the page's header and ends at pd_lower.
        unsafe {
            let header = self.page as *const pg_sys::PageHeaderData;
            let begin = (*header).pd_linp.as_ptr();
            let bytes = usize::from((*header).pd_lower)
                .saturating_sub(std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp));
            std::slice::from_raw_parts(begin, bytes / size_of::<pg_sys::ItemIdData>())
        }
    }

    /// # Safety
    /// As for `new`; `header` is a tuple of `length` bytes on this page.
    pub(super) unsafe fn state(
        &self,
        relation: pg_sys::Relation,
        header: pg_sys::HeapTupleHeader,
        length: u32,
        tid: Tid,
        key: bool,
    ) -> State {
        // SAFETY: the tuple is on the page, which is pinned and share-locked, as HeapTupleSatisfiesUpdate wants it.
        unsafe {
            let mask = u32::from((*header).t_infomask);
            let settled = pg_sys::HEAP_XMIN_COMMITTED | pg_sys::HEAP_XMAX_INVALID;
            if mask & settled == settled {
                return State::Free;
            }
            let mut tuple = pg_sys::HeapTupleData {
                t_len: length,
                t_self: tid::to_item_pointer(tid),
                t_tableOid: (*relation).rd_id,
                t_data: header,
            };
            let command = pg_sys::GetCurrentCommandId(false);
            match pg_sys::HeapTupleSatisfiesUpdate(&mut tuple, command, self.buffer) {
                pg_sys::TM_Result::TM_Ok => State::Free,
                pg_sys::TM_Result::TM_BeingModified if !key && only_key_shared(header) => {
                    State::Free
                }
                pg_sys::TM_Result::TM_BeingModified => State::Busy,
                _ => State::Gone,
            }
        }
    }
}

/// Most line pointers of a heap page (`MaxHeapTuplesPerPage`).
pub(super) fn most_line_pointers() -> usize {
    let header = std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp);
    let tuple = max_align(std::mem::offset_of!(pg_sys::HeapTupleHeaderData, t_bits));
    (pg_sys::BLCKSZ as usize - header) / (tuple + size_of::<pg_sys::ItemIdData>())
}

/// Whether the column is NULL in this row version, as `heap_attisnull` says.
///
/// # Safety
/// `header` is a valid tuple of the table that `column` belongs to.
pub(super) unsafe fn is_null(header: pg_sys::HeapTupleHeader, column: &NullBit) -> bool {
    // SAFETY: the caller says so; the bitmap is there when HEAP_HASNULL is set, one bit a column.
    unsafe {
        if lacks(header, column) {
            return !column.reads_as_missing;
        }
        if u32::from((*header).t_infomask) & pg_sys::HEAP_HASNULL == 0 {
            return false;
        }
        let bit = usize::from(column.number.unsigned_abs()) - 1;
        *(*header).t_bits.as_ptr().add(bit / 8) & (1 << (bit % 8)) == 0
    }
}

/// Whether this row version was written before the column was added.
///
/// # Safety
/// `header` is a valid tuple.
pub(super) unsafe fn lacks(header: pg_sys::HeapTupleHeader, column: &NullBit) -> bool {
    // SAFETY: the caller says so.
    let columns = u32::from(unsafe { (*header).t_infomask2 }) & pg_sys::HEAP_NATTS_MASK;
    u32::from(column.number.unsigned_abs()) > columns
}

/// Whether the row is locked only by `FOR KEY SHARE`, as foreign keys do. An UPDATE of other columns does not wait for
/// that.
///
/// # Safety
/// `header` is a valid tuple.
unsafe fn only_key_shared(header: pg_sys::HeapTupleHeader) -> bool {
    // SAFETY: the caller says so.
    let mask = u32::from(unsafe { (*header).t_infomask });
    let lock_bits = pg_sys::HEAP_XMAX_EXCL_LOCK | pg_sys::HEAP_XMAX_KEYSHR_LOCK;
    // For a MultiXactId, the bits show its strongest lock.
    mask & pg_sys::HEAP_XMAX_LOCK_ONLY != 0 && mask & lock_bits == pg_sys::HEAP_XMAX_KEYSHR_LOCK
}
