//! Pages of a heap, read for a forecast: nothing is pruned, and nothing but hint bits is written.

use pgrx::pg_sys;
use planner::forecast::Sampled;
use planner::page::{Growth, max_align};
use planner::window::Tid;

use crate::pg::heap::{Column, Table};
use crate::pg::heap_page::{
    LP_NORMAL, LP_UNUSED, NullBit, RawPage, State, is_null, lacks, most_line_pointers,
};
use crate::pg::ring::Ring;
use crate::pg::tid;

/// `PD_PAGE_FULL`.
const PAGE_FULL: u16 = 0x0002;

/// A page, and which of its rows that are NULL do not have the column.
#[derive(Debug, Default)]
pub struct Looked {
    /// As the forecast wants it.
    pub sampled: Sampled,
    /// Offsets of rows to be filled that were written before the column was added.
    pub lacking: Vec<u16>,
    /// Rows that are NULL, whether they are to be filled or not.
    pub nulls: usize,
}

impl Table<'_> {
    /// Reads one block. Rows that others hold count as rows to be filled.
    pub fn sample(&self, block: u32, column: &Column, growth: Growth, ring: &Ring) -> Looked {
        // SAFETY: the relation is open and the block exists, as the callers see to; the buffer is pinned and share-locked
        // while its page is read, and an error within releases both through the transaction.
        unsafe {
            let buffer = self.buffer(block, ring);
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let page = RawPage::new(buffer);
            let mut looked = page.looked(self.relation(), block, &column.null_bit(), growth);
            pg_sys::UnlockReleaseBuffer(buffer);
            looked.sampled.recorded = pg_sys::GetRecordedFreeSpace(self.relation(), block);
            looked
        }
    }
}

impl RawPage {
    /// # Safety
    /// As for `RawPage::new`; `relation` is the one that the buffer belongs to.
    unsafe fn looked(
        &self,
        relation: pg_sys::Relation,
        block: u32,
        column: &NullBit,
        growth: Growth,
    ) -> Looked {
        let mut looked = Looked::default();
        let mut toasted = 0;
        let sampled = &mut looked.sampled;
        // SAFETY: as in `RawPage::unfilled_rows`.
        unsafe {
            let header = self.page as *const pg_sys::PageHeaderData;
            sampled.page.free = pg_sys::PageGetHeapFreeSpace(self.page);
            sampled.is_full = (*header).pd_flags & PAGE_FULL != 0;
            sampled.is_imaged = is_imaged(header);
            let pointers = self.line_pointers();
            for (index, pointer) in pointers.iter().enumerate() {
                match pointer.lp_flags() {
                    LP_NORMAL => {}
                    LP_UNUSED => {
                        sampled.unused += 1;
                        continue;
                    }
                    _ => continue,
                }
                let offset = index as u16 + 1;
                let length = pointer.lp_len();
                let row = self.page.add(pointer.lp_off() as usize) as pg_sys::HeapTupleHeader;
                let at = Tid { block, offset };
                if self.is_removable(relation, row, length, at) {
                    sampled.prunable += max_align(length as usize);
                    continue;
                }
                if matches!(self.state(relation, row, length, at, true), State::Gone) {
                    continue;
                }
                sampled.live += 1;
                let mask = u32::from((*row).t_infomask);
                toasted += usize::from(mask & pg_sys::HEAP_HASEXTERNAL != 0);
                if is_null(row, column) {
                    looked.nulls += 1;
                    sampled.page.rows.push(growth.row(offset, length as usize));
                    if lacks(row, column) {
                        looked.lacking.push(offset);
                    }
                }
            }
            sampled.is_toasted = 2 * toasted > sampled.live;
            let most = most_line_pointers();
            sampled.page.line_pointers = most - pointers.len().min(most) + sampled.unused;
        }
        looked
    }

    /// Whether pruning would remove a row version.
    ///
    /// # Safety
    /// As for `RawPage::state`.
    unsafe fn is_removable(
        &self,
        relation: pg_sys::Relation,
        header: pg_sys::HeapTupleHeader,
        length: u32,
        tid: Tid,
    ) -> bool {
        // SAFETY: the tuple is on the page, which is pinned and share-locked, as HeapTupleSatisfiesVacuum wants it.
        unsafe {
            let mask = u32::from((*header).t_infomask);
            let settled = pg_sys::HEAP_XMIN_COMMITTED | pg_sys::HEAP_XMAX_INVALID;
            if mask & settled == settled {
                return false;
            }
            let mut tuple = pg_sys::HeapTupleData {
                t_len: length,
                t_self: tid::to_item_pointer(tid),
                t_tableOid: (*relation).rd_id,
                t_data: header,
            };
            let mut dead_after = pg_sys::TransactionId::INVALID;
            match pg_sys::HeapTupleSatisfiesVacuumHorizon(&mut tuple, self.buffer, &mut dead_after)
            {
                pg_sys::HTSV_Result::HEAPTUPLE_DEAD => true,
                pg_sys::HTSV_Result::HEAPTUPLE_RECENTLY_DEAD => {
                    pg_sys::GlobalVisCheckRemovableXid(relation, dead_after)
                }
                _ => false,
            }
        }
    }
}

/// Whether a page was written since the last checkpoint began.
///
/// # Safety
/// `header` is that of a page in a buffer that is pinned and locked.
pub(super) unsafe fn is_imaged(header: *const pg_sys::PageHeaderData) -> bool {
    // SAFETY: the caller says so; the other reads shared memory under the lock it needs.
    unsafe {
        let lsn = &(*header).pd_lsn;
        let lsn = u64::from(lsn.xlogid) << 32 | u64::from(lsn.xrecoff);
        lsn > pg_sys::GetRedoRecPtr()
    }
}
