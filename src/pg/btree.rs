//! B-trees, of which some leaves are looked at, as `contrib/pageinspect` does.

use std::ffi::c_char;
use std::marker::PhantomData;

use pgrx::pg_sys;
use planner::forecast::Leaf;
use planner::page::max_align;

use crate::pg::heap_sample::is_imaged;
use crate::pg::ring::Ring;
use crate::pg::tid::from_item_pointer;
use crate::pg::tx::Tx;

// Of `BTPageOpaqueData` in `nbtree.h`: two block numbers and the level, then the flags.
const FLAGS: usize = 12;
const IS_LEAF: u16 = 1;
const IS_UNUSED: u16 = 1 << 2 | 1 << 4;
const NEXT: usize = 4;
/// `btm_allequalimage` of `BTMetaPageData`, counted from the beginning of the page.
const ALL_EQUAL_IMAGE: usize = 24 + 40;
// Of `IndexTupleData.t_info`, and of the offset that a tuple has then instead of its row's.
const SIZE: u16 = 0x1fff;
const ALTERNATIVE: u16 = 0x2000;
const IS_POSTING: u16 = 0x2000;
const COUNT: u16 = 0x0fff;
const PIVOT_HAS_ROW: u16 = 0x1000;
const TUPLE_HEADER: usize = 8;

/// An index, open and locked until the end of the transaction.
pub struct BTree<'tx>(pg_sys::Relation, PhantomData<&'tx Tx>);

/// What one page of it is.
#[derive(Debug, Clone)]
pub enum Page {
    /// A leaf.
    Leaf(Leaf, Contents),
    /// Empty, to be used again.
    Empty,
    /// One above the leaves, or the first.
    Other,
}

/// What a leaf has in it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Contents {
    /// Tuples, and their bytes if each were the only one of its key.
    pub tuples: usize,
    /// Bytes.
    pub bytes: usize,
    /// Different keys.
    pub keys: usize,
    /// The last key goes on in the next leaf.
    pub goes_on: bool,
    /// How often the next key's first row lies not far behind that of the key before, or not far before it.
    pub near: usize,
}

impl<'tx> BTree<'tx> {
    /// Opens the index, waiting for its lock.
    pub fn open(_tx: &'tx Tx, oid: pg_sys::Oid) -> Option<Self> {
        // SAFETY: takes the lock, then looks whether it exists.
        let relation = unsafe { pg_sys::try_relation_open(oid, pg_sys::AccessShareLock as i32) };
        (!relation.is_null()).then(|| BTree(relation, PhantomData))
    }

    /// The number of blocks it has.
    pub fn blocks(&self) -> u32 {
        // SAFETY: the relation is open.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM) }
    }

    /// Whether keys that are equal have equal bytes, so that they can be merged.
    pub fn equal_keys_are_same(&self, ring: &Ring) -> bool {
        // SAFETY: the first page of a B-tree is the one with its metadata.
        self.blocks() > 0
            && self.with_page(0, ring, |page| unsafe { *page.add(ALL_EQUAL_IMAGE) != 0 })
    }

    /// Reads one block, which must exist.
    pub fn page(&self, block: u32, ring: &Ring) -> Page {
        if block == 0 {
            return Page::Other;
        }
        // SAFETY: the page is one of a B-tree, pinned and locked.
        self.with_page(block, ring, |page| unsafe { read(page) })
    }

    fn with_page<T>(&self, block: u32, ring: &Ring, work: impl FnOnce(*const c_char) -> T) -> T {
        // SAFETY: the relation is open and the block exists; the buffer is pinned and share-locked while `work` reads its
        // page.
        unsafe {
            let buffer = pg_sys::ReadBufferExtended(
                self.0,
                pg_sys::ForkNumber::MAIN_FORKNUM,
                block,
                pg_sys::ReadBufferMode::RBM_NORMAL,
                ring.strategy(),
            );
            pg_sys::LockBuffer(buffer, pg_sys::BUFFER_LOCK_SHARE as i32);
            let result = work(pg_sys::BufferGetPage(buffer).cast_const().cast());
            pg_sys::UnlockReleaseBuffer(buffer);
            result
        }
    }
}

impl Drop for BTree<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open`; the lock stays until the transaction ends.
            unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as i32) };
        }
    }
}

/// # Safety
/// `page` is one of a B-tree, pinned and locked.
unsafe fn read(page: *const c_char) -> Page {
    // SAFETY: a page that is not new has its special space behind its tuples; line pointers are read up to the page's own
    // count, and tuples through those that are in use.
    unsafe {
        let header = page.cast::<pg_sys::PageHeaderData>();
        if (*header).pd_upper == 0 {
            return Page::Empty;
        }
        let special = page.add(usize::from((*header).pd_special));
        let flags = special.add(FLAGS).cast::<u16>().read_unaligned();
        if flags & IS_UNUSED != 0 {
            return Page::Empty;
        }
        if flags & IS_LEAF == 0 {
            return Page::Other;
        }
        let pointers = std::slice::from_raw_parts(
            (*header).pd_linp.as_ptr(),
            usize::from((*header).pd_lower)
                .saturating_sub(std::mem::offset_of!(pg_sys::PageHeaderData, pd_linp))
                / size_of::<pg_sys::ItemIdData>(),
        );
        let is_last = special.add(NEXT).cast::<u32>().read_unaligned() == 0;
        let tuple = |pointer: &pg_sys::ItemIdData| {
            page.add(pointer.lp_off() as usize)
                .cast::<pg_sys::IndexTupleData>()
        };
        let mut contents = Contents::default();
        if !is_last && let Some(high_key) = pointers.first() {
            let high_key = &*tuple(high_key);
            contents.goes_on =
                high_key.t_info & ALTERNATIVE != 0 && high_key.t_tid.ip_posid & PIVOT_HAS_ROW != 0;
        }
        let mut rows = 0;
        let mut before: Option<(&[u8], u32)> = None;
        for pointer in pointers.iter().skip(usize::from(!is_last)) {
            let at = tuple(pointer);
            let (key_end, count, row) = match is_posting(&*at) {
                true => {
                    let list = from_item_pointer((*at).t_tid);
                    let first = at.cast::<u8>().add(list.block as usize);
                    let first = first.cast::<pg_sys::ItemPointerData>().read_unaligned();
                    (list.block as usize, usize::from(list.offset & COUNT), first)
                }
                false => (usize::from((*at).t_info & SIZE), 1, (*at).t_tid),
            };
            rows += count;
            contents.tuples += 1;
            contents.bytes += max_align(key_end);
            let key_length = key_end.saturating_sub(TUPLE_HEADER);
            let key = std::slice::from_raw_parts(at.cast::<u8>().add(TUPLE_HEADER), key_length);
            let block = from_item_pointer(row).block;
            match before {
                Some((last, _)) if last == key => {}
                Some((_, last)) => {
                    contents.keys += 1;
                    contents.near += usize::from(block.abs_diff(last) <= NEAR);
                    before = Some((key, block));
                }
                None => {
                    contents.keys += 1;
                    before = Some((key, block));
                }
            }
        }
        let leaf = Leaf {
            free: usize::from((*header).pd_upper).saturating_sub((*header).pd_lower.into()),
            rows,
            is_imaged: is_imaged(header),
        };
        Page::Leaf(leaf, contents)
    }
}

/// Rows of neighbouring keys are near each other within so many blocks.
const NEAR: u32 = 32;

fn is_posting(tuple: &pg_sys::IndexTupleData) -> bool {
    tuple.t_info & ALTERNATIVE != 0 && tuple.t_tid.ip_posid & IS_POSTING != 0
}
