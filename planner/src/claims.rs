//! Which blocks of a table each of several processes sweeps.
//!
//! A process that is free claims the next blocks. Nothing is assigned beforehand, so a process waits for a slower one
//! only at the very end, and a run with another number of processes can continue where this one stopped: at the first
//! block that is not done.

use std::ops::Range;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// The largest number of processes that can sweep one table.
pub const MOST_WORKERS: usize = 64;
/// Fewer blocks than this are not worth dividing.
const LEAST_CLAIM: u32 = 64;
/// Nor this part of the share of one process in the whole table, up to so many blocks: each pass over them would wait for
/// the batches of other processes.
const LEAST_PART: u32 = 8;
const LARGEST_LEAST_CLAIM: u32 = 1024;
/// A process may have so many claims at a time, which are its share in the table at most: others may have to begin yet.
pub const CLAIMS_PER_SHARE: u32 = 4;
/// Stands for no block: the process has claimed none, or no blocks can be claimed.
const NONE: u32 = u32::MAX;

/// The blocks of one table: those that are done, those that are claimed, and those that are neither.
///
/// Consists only of atomics, so that it can be placed in shared memory.
#[derive(Debug)]
#[repr(C)]
pub struct Claims {
    /// The round, in the upper half, and the next block that is neither done nor claimed.
    next: AtomicU64,
    start: AtomicU32,
    end: AtomicU32,
    done: AtomicU32,
    /// The first block that each process has claimed and that is not done.
    claimed: [AtomicU32; MOST_WORKERS],
    /// How many blocks' worth of that is done.
    under_way: [AtomicU32; MOST_WORKERS],
}

/// One pass over the blocks of one table. Claims of an earlier round have no effect on a later one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Round(u32);

impl Default for Claims {
    fn default() -> Self {
        Claims {
            next: AtomicU64::new(u64::from(NONE)),
            start: AtomicU32::new(0),
            end: AtomicU32::new(0),
            done: AtomicU32::new(0),
            claimed: [const { AtomicU32::new(NONE) }; MOST_WORKERS],
            under_way: [const { AtomicU32::new(0) }; MOST_WORKERS],
        }
    }
}

impl Claims {
    fn state(&self) -> (Round, u32) {
        let state = self.next.load(SeqCst);
        (Round((state >> 32) as u32), state as u32)
    }

    fn set(&self, round: Round, next: u32) {
        self.next
            .store(u64::from(round.0) << 32 | u64::from(next), SeqCst);
    }

    /// Begins a round over these blocks. Only one process may call this.
    pub fn begin(&self, blocks: Range<u32>) -> Round {
        let round = self.close();
        self.start.store(blocks.start, SeqCst);
        self.end.store(blocks.end.min(NONE - 1), SeqCst);
        self.done.store(0, SeqCst);
        self.set(round, blocks.start);
        round
    }

    /// Ends the round: from now on nothing can be claimed. Only the process that began it may call this. Returns the
    /// number of the next round.
    pub fn close(&self) -> Round {
        let round = Round(self.state().0.0.wrapping_add(1));
        self.set(round, NONE);
        round
    }

    /// The current round, if there are blocks to claim in it.
    pub fn open(&self) -> Option<Round> {
        let (round, next) = self.state();
        (next < self.end.load(SeqCst) && self.state().0 == round).then_some(round)
    }

    /// Claims the next blocks for process number `worker` of `of`, which may have claimed others: at most `most`, and fewer
    /// near the end of the table, to share the rest among all. `None` when all are claimed.
    pub fn take(&self, round: Round, worker: usize, of: u32, most: u32) -> Option<Range<u32>> {
        let was_idle = self.is_idle(worker);
        loop {
            let (now, first) = self.state();
            let end = self.end.load(SeqCst);
            if now != round || first >= end {
                if was_idle {
                    self.release(worker);
                }
                return None;
            }
            let all = end - self.start.load(SeqCst).min(end);
            let share = (end - first).div_ceil(of.max(1)).max(least(all, of));
            let last = first
                .saturating_add(most.min(share).min(largest(all, of)).max(1))
                .min(end);
            // First this, then the claim itself: otherwise the blocks could seem to be done in between.
            if was_idle {
                self.slot(worker).store(first, SeqCst);
            }
            let round = u64::from(round.0) << 32;
            let (old, new) = (round | u64::from(first), round | u64::from(last));
            if self.next.compare_exchange(old, new, SeqCst, SeqCst).is_ok() {
                return Some(first..last);
            }
        }
    }

    /// Tells how many blocks' worth of what process `worker` has claimed is done.
    pub fn note(&self, worker: usize, blocks: u32) {
        self.under_way[worker % MOST_WORKERS].store(blocks, SeqCst);
    }

    /// Tells that these blocks, which process `worker` has claimed, are done. `next` is the first block of those that it
    /// has claimed and not done.
    /// Without effect in a later round than they were claimed in.
    pub fn done(&self, round: Round, worker: usize, blocks: &Range<u32>, next: Option<u32>) {
        if self.state().0 != round {
            return;
        }
        self.done.fetch_add(blocks.end - blocks.start, SeqCst);
        self.slot(worker).store(next.unwrap_or(NONE), SeqCst);
    }

    /// Withdraws what process `worker` has claimed, whether or not it is done.
    pub fn release(&self, worker: usize) {
        self.note(worker, 0);
        self.slot(worker).store(NONE, SeqCst);
    }

    /// All blocks before this one are done.
    pub fn position(&self) -> u32 {
        // The order matters: `next` is read first, so that every block before it that is not done is seen as claimed
        // below.
        let next = self.state().1.min(self.end.load(SeqCst));
        let claimed = self.claimed.iter().map(|slot| slot.load(SeqCst));
        claimed.fold(next, u32::min)
    }

    /// How many blocks of this round are done, not only those before [`Claims::position`], and how many blocks' worth of
    /// those that are being swept.
    pub fn blocks_done(&self) -> u32 {
        let under_way = self.under_way.iter().map(|slot| slot.load(SeqCst));
        self.done.load(SeqCst) + under_way.sum::<u32>()
    }

    /// How many blocks nobody has claimed in this round; 0 if it is over.
    pub fn unclaimed(&self, round: Round) -> u32 {
        let (now, next) = self.state();
        match now == round {
            true => self.end.load(SeqCst).saturating_sub(next),
            false => 0,
        }
    }

    /// How many blocks this round has.
    pub fn blocks(&self) -> u32 {
        let start = self.start.load(SeqCst);
        self.end.load(SeqCst).saturating_sub(start)
    }

    /// Whether process `worker` sweeps nothing.
    pub fn is_idle(&self, worker: usize) -> bool {
        self.slot(worker).load(SeqCst) == NONE
    }

    fn slot(&self, worker: usize) -> &AtomicU32 {
        &self.claimed[worker % MOST_WORKERS]
    }
}

/// The least number of blocks that is claimed, but for the last ones, where so many are shared by `of` processes.
fn least(all: u32, of: u32) -> u32 {
    (all / of.max(1) / LEAST_PART).clamp(LEAST_CLAIM, LARGEST_LEAST_CLAIM)
}

/// The largest number of blocks that is claimed at once, where so many are shared by `of` processes.
fn largest(all: u32, of: u32) -> u32 {
    match of {
        0 | 1 => u32::MAX,
        _ => (all / of / CLAIMS_PER_SHARE).max(LEAST_CLAIM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Mutex;

    /// Sweeps all blocks with so many threads; returns how often each block was claimed.
    fn sweep(blocks: Range<u32>, workers: u32, most: u32) -> Vec<u32> {
        let claims = Claims::default();
        let round = claims.begin(blocks.clone());
        let counted = Mutex::new(vec![0; blocks.end as usize]);
        let finished = Mutex::new(vec![false; blocks.end as usize]);
        std::thread::scope(|scope| {
            for worker in 0..workers as usize {
                let (claims, counted, finished) = (&claims, &counted, &finished);
                let start = blocks.start;
                scope.spawn(move || {
                    while let Some(range) = claims.take(round, worker, workers, most) {
                        for block in range.clone() {
                            counted.lock().unwrap()[block as usize] += 1;
                        }
                        std::thread::yield_now();
                        for block in range.clone() {
                            finished.lock().unwrap()[block as usize] = true;
                        }
                        claims.done(round, worker, &range, None);
                        // Read before the list: blocks are never undone.
                        let position = claims.position();
                        let finished = finished.lock().unwrap();
                        assert!((start..position).all(|block| finished[block as usize]));
                    }
                });
            }
        });
        assert_eq!(claims.position(), blocks.end);
        assert_eq!(claims.blocks_done(), blocks.end - blocks.start);
        counted.into_inner().unwrap()
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn each_block_is_claimed_once(
            start in 0u32..1000, length in 0u32..20_000, workers in 1u32..6, most in 1u32..4096,
        ) {
            let counted = sweep(start..start + length, workers, most);
            prop_assert!(counted[..start as usize].iter().all(|count| *count == 0));
            prop_assert!(counted[start as usize..].iter().all(|count| *count == 1));
        }
    }

    #[test]
    fn what_is_claimed_and_not_done_holds_the_position_back() {
        let claims = Claims::default();
        let round = claims.begin(100..10_000);
        assert_eq!(claims.position(), 100);
        let first = claims.take(round, 0, 2, 1000).unwrap();
        let second = claims.take(round, 1, 2, 1000).unwrap();
        assert_eq!((first.clone(), second.clone()), (100..1100, 1100..2100));
        claims.done(round, 1, &second, None);
        assert_eq!(claims.position(), 100);
        assert_eq!(claims.blocks_done(), 1000);
        claims.note(0, 400);
        assert_eq!(claims.blocks_done(), 1400);
        claims.note(0, 0);
        claims.done(round, 0, &first, None);
        assert_eq!(claims.position(), 2100);
    }

    #[test]
    fn what_nobody_has_claimed_is_known_in_its_round_only() {
        let claims = Claims::default();
        let before = claims.begin(0..50);
        let round = claims.begin(100..1100);
        assert_eq!((claims.blocks(), claims.unclaimed(round)), (1000, 1000));
        let first = claims.take(round, 0, 1, 300).unwrap();
        assert_eq!((claims.blocks(), claims.unclaimed(round)), (1000, 700));
        claims.done(round, 0, &first, None);
        assert_eq!(
            (claims.unclaimed(round), claims.unclaimed(before)),
            (700, 0)
        );
        while claims.take(round, 1, 1, 300).is_some() {}
        assert_eq!((claims.blocks(), claims.unclaimed(round)), (1000, 0));
        claims.close();
        assert_eq!(claims.unclaimed(round), 0);
    }

    #[test]
    fn a_process_may_have_several_claims_in_any_order() {
        let claims = Claims::default();
        let round = claims.begin(0..3000);
        let take = || claims.take(round, 1, 1, 1000).unwrap();
        let (first, second) = (take(), take());
        claims.done(round, 1, &second, Some(first.start));
        assert_eq!(claims.position(), 0);
        let third = take();
        assert_eq!(claims.take(round, 1, 1, 1000), None);
        claims.done(round, 1, &first, Some(third.start));
        assert_eq!(claims.position(), 2000);
        assert!(!claims.is_idle(1));
        claims.done(round, 1, &third, None);
        assert_eq!((claims.position(), claims.blocks_done()), (3000, 3000));
        assert!(claims.is_idle(1));
    }

    #[test]
    fn claims_get_smaller_near_the_end_but_not_tiny() {
        let sizes = |blocks: u32, of: u32| -> Vec<u32> {
            let claims = Claims::default();
            let round = claims.begin(10..10 + blocks);
            let sizes: Vec<u32> = std::iter::from_fn(|| claims.take(round, 0, of, 8192))
                .map(|range| range.end - range.start)
                .collect();
            let (last, others) = sizes.split_last().unwrap();
            assert!(others.iter().all(|size| *size >= least(blocks, of)) && *last <= others[0]);
            assert_eq!(sizes.iter().sum::<u32>(), blocks);
            sizes
        };
        assert_eq!(sizes(16_000, 4)[..10], [1000; 10]);
        assert_eq!(sizes(16_000, 4)[12..], [1000, 750, 563, 500, 500, 500, 187]);
        assert_eq!(sizes(200, 2), [64, 64, 64, 8]);
        assert_eq!(sizes(16_000, 1)[..2], [8192, 7808]);
        assert_eq!(least(16_000, 1), 1024);
    }

    #[test]
    fn nothing_is_claimed_of_another_round() {
        let claims = Claims::default();
        assert_eq!(claims.open(), None);
        let before = claims.begin(0..1000);
        assert_eq!(claims.open(), Some(before));
        let round = claims.begin(0..500);
        assert_eq!(claims.take(before, 1, 1, 10), None);
        assert_eq!(claims.take(round, 1, 1, 10), Some(0..10));
        claims.close();
        assert_eq!(claims.open(), None);
        assert_eq!(claims.take(round, 1, 1, 10), None);
    }
}
