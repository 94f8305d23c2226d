//! Forces plans that fetch rows by their places, whatever the planner's estimates for the other conditions are.
//!
//! An UPDATE of rows whose places are known must not become an index scan over all rows that meet its other conditions,
//! which stale statistics, an index on the column or a filter can make look cheap. PostgreSQL has no syntax for that,
//! but a hook by which extensions can change the paths of a table (`set_rel_pathlist_hook` in `allpaths.c`).

use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::{pg_guard, pg_sys};

use crate::pg::settings::Temporarily;
use crate::pg::tx::Tx;

/// The table whose rows are being fetched by place; a backend has one thread.
static TABLE: AtomicU32 = AtomicU32::new(0);
static mut PREVIOUS: pg_sys::set_rel_pathlist_hook_type = None;

/// Installs the hook; called once when the library is loaded.
pub fn install() {
    // SAFETY: a backend has one thread; the hook that was there is called by ours.
    unsafe {
        PREVIOUS = pg_sys::set_rel_pathlist_hook;
        pg_sys::set_rel_pathlist_hook = Some(choose_paths);
    }
}

/// Runs `work`, in which statements that write, lock or select rows of `table` by their `ctid` are planned as TID scans.
///
/// All other tables of such a statement, for instance in the user's expression, are planned as usual.
pub fn enforce<T>(tx: &Tx, table: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let _restore = Restore(TABLE.swap(table.to_u32(), Ordering::Relaxed));
    let _enabled = Temporarily::tid_scans(tx);
    work()
}

/// Restores the value, also after an error.
struct Restore(u32);

impl Drop for Restore {
    fn drop(&mut self) {
        TABLE.store(self.0, Ordering::Relaxed);
    }
}

/// # Safety
/// Called by the planner alone, with its own structures.
#[pg_guard]
unsafe extern "C-unwind" fn choose_paths(
    root: *mut pg_sys::PlannerInfo,
    relation: *mut pg_sys::RelOptInfo,
    index: pg_sys::Index,
    entry: *mut pg_sys::RangeTblEntry,
) {
    // SAFETY: the planner's own structures, valid during the call.
    unsafe {
        if let Some(previous) = PREVIOUS {
            previous(root, relation, index, entry);
        }
        let table = TABLE.load(Ordering::Relaxed);
        if table != 0 && (*entry).relid.to_u32() == table && is_ours(root, index) {
            keep_tid_scans(root, relation);
        }
    }
}

/// # Safety
/// As for the hook.
unsafe fn is_ours(root: *mut pg_sys::PlannerInfo, index: pg_sys::Index) -> bool {
    // SAFETY: the caller says so.
    unsafe {
        let query = (*root).parse;
        i64::from((*query).resultRelation) == i64::from(index)
            || !(*query).rowMarks.is_null()
            || (*query).commandType == pg_sys::CmdType::CMD_SELECT && (*root).query_level == 1
    }
}

/// Drops all other paths, if the conditions on `ctid` make one possible. Cheaper ones may have displaced it already.
///
/// # Safety
/// As for the hook.
unsafe fn keep_tid_scans(root: *mut pg_sys::PlannerInfo, relation: *mut pg_sys::RelOptInfo) {
    // SAFETY: the caller says so; every member of a path list is a node.
    unsafe {
        let (before, partial) = ((*relation).pathlist, (*relation).partial_pathlist);
        if is_dummy(before) {
            return;
        }
        (*relation).pathlist = std::ptr::null_mut();
        (*relation).partial_pathlist = std::ptr::null_mut();
        pg_sys::create_tidscan_paths(root, relation);
        if (*relation).pathlist.is_null() {
            ((*relation).pathlist, (*relation).partial_pathlist) = (before, partial);
        }
    }
}

/// Whether the conditions contradict each other, so that nothing is to be read (`IS_DUMMY_REL`).
///
/// # Safety
/// `paths` is null or a list of the planner's paths.
unsafe fn is_dummy(paths: *const pg_sys::List) -> bool {
    // SAFETY: the caller says so.
    unsafe {
        if paths.is_null() {
            return false;
        }
        let first = (*(*paths).elements).ptr_value.cast::<pg_sys::Node>();
        (*first).type_ == pg_sys::NodeTag::T_AppendPath
    }
}
