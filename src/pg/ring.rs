//! Buffers that a scan uses in turn, so that it does not push the pages of others out of shared buffers.

use pgrx::pg_sys;

/// A ring of shared buffers (`BufferAccessStrategy`), which outlives transactions.
///
/// A page that is in use elsewhere, or that an UPDATE has changed, stays in memory: PostgreSQL replaces it in the ring
/// (`GetBufferFromRing` in `freelist.c`).
pub struct Ring(pg_sys::BufferAccessStrategy);

impl Ring {
    /// 256 kB, as a sequential scan of a large table uses: for pages that are read once.
    pub fn for_reading() -> Self {
        Self::of(pg_sys::BufferAccessStrategyType::BAS_BULKREAD)
    }

    /// 16 MB, as much as a window: for pages that are read again soon, unless nothing is to be done there.
    pub fn for_sweeping() -> Self {
        Self::of(pg_sys::BufferAccessStrategyType::BAS_BULKWRITE)
    }

    fn of(kind: pg_sys::BufferAccessStrategyType::Type) -> Self {
        // SAFETY: the memory context lives as long as the backend and is switched back at once.
        unsafe {
            let context = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            let strategy = pg_sys::GetAccessStrategy(kind);
            pg_sys::MemoryContextSwitchTo(context);
            Ring(strategy)
        }
    }

    /// PostgreSQL's handle, valid while `self` lives.
    pub(super) fn strategy(&self) -> pg_sys::BufferAccessStrategy {
        self.0
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        // SAFETY: made by `of`, and freed once; buffers know nothing of their ring. Correct on an error's way out too.
        unsafe { pg_sys::FreeAccessStrategy(self.0) };
    }
}
