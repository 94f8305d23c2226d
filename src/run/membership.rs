//! The place of this process among those that work on one run.

use planner::claims::Round;
use planner::team::{LEADER, Team};

use crate::error::Error;
use crate::pg::failure::Failure;
use crate::pg::segment::Segment;
use crate::pg::usage;

/// A longer part of a failure is cut off, so that there is room for the others.
const LONGEST_PART: usize = 2000;

/// Which of the processes this one is, and what they share.
pub struct Membership {
    memory: Memory,
    worker: usize,
    of: u32,
}

enum Memory {
    Own(Box<Team>),
    Shared(Segment),
}

impl Membership {
    /// The only process of its run.
    pub fn alone() -> Self {
        Membership {
            memory: Memory::Own(Box::default()),
            worker: LEADER,
            of: 1,
        }
    }

    /// Process number `worker` of so many; the leader is number 0.
    pub fn shared(segment: Segment, worker: usize, of: u32) -> Self {
        segment.team().join(worker, usage::pid());
        Membership {
            memory: Memory::Shared(segment),
            worker,
            of,
        }
    }

    /// What the processes share.
    pub fn team(&self) -> &Team {
        match &self.memory {
            Memory::Own(team) => team,
            Memory::Shared(segment) => segment.team(),
        }
    }

    /// The number of this process.
    pub fn worker(&self) -> usize {
        self.worker
    }

    /// How many processes there are.
    pub fn of(&self) -> u32 {
        self.of
    }

    /// Whether this process gives out blocks, stores progress and verifies.
    pub fn leads(&self) -> bool {
        self.worker == LEADER
    }

    /// Claims blocks of the table that is filled in this round.
    pub fn take(&self, round: Round, most: u32) -> Option<std::ops::Range<u32>> {
        self.team().claims.take(round, self.worker, self.of, most)
    }

    /// Tells that this process sweeps no blocks, done or not.
    pub fn release(&self) {
        self.team().claims.release(self.worker);
    }

    /// Whether none of the other processes sweeps blocks.
    pub fn others_are_idle(&self) -> bool {
        let mut others = (0..self.of as usize).filter(|worker| *worker != self.worker);
        others.all(|worker| self.team().claims.is_idle(worker))
    }

    /// Each process, as it is stored: its process ID, and the rows that it has filled in this run. `None` where there is
    /// only one.
    pub fn figures(&self) -> Option<String> {
        let figures = self
            .team()
            .members()
            .into_iter()
            .map(|(pid, rows)| serde_json::json!({ "pid": pid, "rows_filled": rows }));
        (self.of > 1).then(|| serde_json::Value::Array(figures.collect()).to_string())
    }

    /// Tells the leader what has ended this process.
    pub fn fail(&self, failure: &Failure) {
        let cut = |text: &str| text[..text.floor_char_boundary(LONGEST_PART)].to_owned();
        let failure = Failure {
            sqlstate: failure.sqlstate.clone(),
            message: cut(&failure.message),
            detail: failure.detail.as_deref().map(cut),
            hint: failure.hint.as_deref().map(cut),
        };
        if let Ok(text) = serde_json::to_string(&failure) {
            self.team().fail(&text);
        }
    }

    /// What has ended another process.
    pub fn failure(&self) -> Option<Error> {
        let text = self.team().failure()?;
        Some(serde_json::from_str(&text).map_or_else(Error::from, Error::OfHelper))
    }
}
