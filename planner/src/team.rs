//! What the processes of one run share: the claims on blocks, what each has done, and whether it is over.

use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU8, AtomicU32, AtomicU64, Ordering::SeqCst};

use crate::claims::{Claims, MOST_WORKERS, Round};

/// The text of a failure is cut off after this many bytes.
const LONGEST_FAILURE: usize = 8 * 1024;

/// The number of the leading process, here and in [`Claims`].
pub const LEADER: usize = 0;

/// What the processes share. Consists only of atomics, so that it can be placed in shared memory.
#[derive(Debug)]
#[repr(C)]
pub struct Team {
    /// The blocks of the table that is filled now.
    pub claims: Claims,
    table: AtomicU32,
    file: AtomicU32,
    is_over: AtomicBool,
    transactions: AtomicU64,
    members: [Member; MOST_WORKERS],
    failure: Failure,
}

/// A table whose blocks can be claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stint {
    /// Its OID.
    pub table: u32,
    /// The number of the file that the table is stored in.
    pub file: u32,
    /// The round in which its blocks are claimed.
    pub round: Round,
}

/// One of the processes.
#[derive(Debug)]
#[repr(C)]
struct Member {
    pid: AtomicI32,
    has_left: AtomicBool,
    /// Rows filled since the run began.
    rows: AtomicU64,
    /// What its batches did and the leader has not collected yet.
    done: [AtomicU64; 4],
}

impl Default for Member {
    fn default() -> Self {
        Member {
            pid: AtomicI32::new(0),
            has_left: AtomicBool::new(false),
            rows: AtomicU64::new(0),
            done: [const { AtomicU64::new(0) }; 4],
        }
    }
}

/// What batches did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Rows filled.
    pub rows: u64,
    /// Of those, by HOT updates.
    pub hot: u64,
    /// Batches that filled any.
    pub batches: u64,
    /// Bytes of WAL written.
    pub wal: u64,
}

/// A text that one process writes, once, for another to read.
#[derive(Debug)]
#[repr(C)]
struct Failure {
    is_taken: AtomicBool,
    is_there: AtomicBool,
    length: AtomicU32,
    bytes: [AtomicU8; LONGEST_FAILURE],
}

impl Counts {
    /// Adds what another batch did.
    pub fn add(&mut self, other: &Counts) {
        self.rows += other.rows;
        self.hot += other.hot;
        self.batches += other.batches;
        self.wal += other.wal;
    }
}

impl Default for Team {
    fn default() -> Self {
        Team {
            claims: Claims::default(),
            table: AtomicU32::new(0),
            file: AtomicU32::new(0),
            is_over: AtomicBool::new(false),
            transactions: AtomicU64::new(0),
            members: std::array::from_fn(|_| Member::default()),
            failure: Failure {
                is_taken: AtomicBool::new(false),
                is_there: AtomicBool::new(false),
                length: AtomicU32::new(0),
                bytes: [const { AtomicU8::new(0) }; LONGEST_FAILURE],
            },
        }
    }
}

impl Team {
    /// Opens the blocks of a table to be claimed. Only the leader may call this.
    pub fn begin(&self, table: u32, file: u32, blocks: std::ops::Range<u32>) -> Round {
        self.claims.close();
        self.table.store(table, SeqCst);
        self.file.store(file, SeqCst);
        self.claims.begin(blocks)
    }

    /// The table whose blocks can be claimed now.
    pub fn open(&self) -> Option<Stint> {
        let round = self.claims.open()?;
        let stint = Stint {
            table: self.table.load(SeqCst),
            file: self.file.load(SeqCst),
            round,
        };
        (self.claims.open() == Some(round)).then_some(stint)
    }

    /// The table whose blocks were opened last.
    pub fn table(&self) -> u32 {
        self.table.load(SeqCst)
    }

    /// Tells all processes but the leader to end.
    pub fn end(&self) {
        self.claims.close();
        self.is_over.store(true, SeqCst);
    }

    /// Whether all processes but the leader are to end.
    pub fn is_over(&self) -> bool {
        self.is_over.load(SeqCst)
    }

    /// Tells that process number `worker` has begun.
    pub fn join(&self, worker: usize, pid: i32) {
        self.member(worker).pid.store(pid, SeqCst);
    }

    /// Records that process number `worker` ends without an error.
    pub fn leave(&self, worker: usize) {
        self.member(worker).has_left.store(true, SeqCst);
    }

    /// Whether process number `worker` has ended without an error.
    pub fn has_left(&self, worker: usize) -> bool {
        self.member(worker).has_left.load(SeqCst)
    }

    /// Adds what a batch of process number `worker` has done, for the leader to collect.
    pub fn add(&self, worker: usize, done: &Counts) {
        let member = self.member(worker);
        member.rows.fetch_add(done.rows, SeqCst);
        if worker != LEADER {
            let counts = [done.rows, done.hot, done.batches, done.wal];
            for (slot, count) in member.done.iter().zip(counts) {
                slot.fetch_add(count, SeqCst);
            }
        }
    }

    /// What the other processes have done since the leader last asked.
    pub fn collect(&self) -> Counts {
        let mut sums = [0; 4];
        for member in &self.members[1..] {
            for (sum, slot) in sums.iter_mut().zip(&member.done) {
                if slot.load(SeqCst) > 0 {
                    *sum += slot.swap(0, SeqCst);
                }
            }
        }
        let [rows, hot, batches, wal] = sums;
        Counts {
            rows,
            hot,
            batches,
            wal,
        }
    }

    /// The processes that have begun: process ID, and rows filled since the run began.
    pub fn members(&self) -> Vec<(i32, u64)> {
        let begun = self.members.iter().filter_map(|member| {
            let pid = member.pid.load(SeqCst);
            (pid != 0).then(|| (pid, member.rows.load(SeqCst)))
        });
        begun.collect()
    }

    /// Records that a process is about to begin this many transactions and subtransactions that write.
    pub fn begins_transactions(&self, count: u64) {
        self.transactions.fetch_add(count, SeqCst);
    }

    /// Takes back what [`Team::begins_transactions`] recorded, since nothing was written.
    pub fn has_not_begun_transactions(&self, count: u64) {
        self.transactions.fetch_sub(count, SeqCst);
    }

    /// How many transactions and subtransactions the processes have begun.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(SeqCst)
    }

    /// Stores the error that has ended a process. Only the first one is kept.
    pub fn fail(&self, text: &str) {
        let failure = &self.failure;
        if failure.is_taken.swap(true, SeqCst) {
            return;
        }
        let most = text.floor_char_boundary(LONGEST_FAILURE);
        for (slot, byte) in failure.bytes.iter().zip(text[..most].bytes()) {
            slot.store(byte, SeqCst);
        }
        failure.length.store(most as u32, SeqCst);
        failure.is_there.store(true, SeqCst);
    }

    /// The error that has ended a process, if one has.
    pub fn failure(&self) -> Option<String> {
        let failure = &self.failure;
        if !failure.is_there.load(SeqCst) {
            return None;
        }
        let length = failure.length.load(SeqCst) as usize;
        let bytes = failure.bytes.iter().take(length);
        let bytes: Vec<u8> = bytes.map(|byte| byte.load(SeqCst)).collect();
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn member(&self, worker: usize) -> &Member {
        &self.members[worker % MOST_WORKERS]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_others_have_done_is_collected_once() {
        let team = Team::default();
        let done = Counts {
            rows: 10,
            hot: 9,
            batches: 1,
            wal: 1000,
        };
        team.join(LEADER, 100);
        team.join(2, 102);
        team.add(LEADER, &done);
        team.add(2, &done);
        team.add(3, &done);
        assert_eq!(team.collect().rows, 20);
        assert_eq!(team.collect(), Counts::default());
        assert_eq!(team.members(), [(100, 10), (102, 10)]);
    }

    #[test]
    fn the_first_failure_stays() {
        let team = Team::default();
        assert_eq!(team.failure(), None);
        team.fail(&"ä".repeat(LONGEST_FAILURE));
        team.fail("another");
        let kept = team.failure().unwrap();
        assert_eq!(kept, "ä".repeat(LONGEST_FAILURE / 2));
    }

    #[test]
    fn blocks_are_those_of_the_table_that_is_open() {
        let team = Team::default();
        assert_eq!(team.open(), None);
        let round = team.begin(7, 8, 0..100);
        let stint = Stint {
            table: 7,
            file: 8,
            round,
        };
        assert_eq!(team.open(), Some(stint));
        team.end();
        assert_eq!(team.open(), None);
        assert!(team.is_over());
    }
}
