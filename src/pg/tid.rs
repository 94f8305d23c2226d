//! Places of row versions, as PostgreSQL has them and as the planner does.

use pgrx::pg_sys;
use planner::window::Tid;

/// PostgreSQL's form of a place.
pub fn to_item_pointer(tid: Tid) -> pg_sys::ItemPointerData {
    pg_sys::ItemPointerData {
        ip_blkid: pg_sys::BlockIdData {
            bi_hi: (tid.block >> 16) as u16,
            bi_lo: tid.block as u16,
        },
        ip_posid: tid.offset,
    }
}

/// The planner's form of a place.
pub fn from_item_pointer(item: pg_sys::ItemPointerData) -> Tid {
    Tid {
        block: (u32::from(item.ip_blkid.bi_hi) << 16) | u32::from(item.ip_blkid.bi_lo),
        offset: item.ip_posid,
    }
}
