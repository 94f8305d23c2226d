//! The phases of filling one table, and which follows which.
//!
//! A table is filled in one sweep over its blocks. Rows that moved meanwhile, that others had locked, or that were
//! inserted later may still be NULL. So the whole table is read again, and the NULLs found are filled, until one such
//! look finds none.

use crate::window::Tid;

/// The largest number of looks that fill what they find. After that, what is left is only counted.
pub const MOST_LOOKS: u32 = 5;

/// What is being done with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Its blocks are swept, window by window.
    Filling,
    /// Its blocks are looked at, window by window, and what is found is filled.
    Verifying,
    /// Rows that the last look found locked by others are waited for, one by one.
    Waiting,
    /// Its blocks are looked at, and nothing is filled.
    Counting,
    /// Nothing is left to do.
    Done(Finding),
}

/// The result for a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finding {
    /// The last look found nothing to fill.
    Verified {
        /// Rows that are NULL still, because the expression is NULL for them.
        null: u64,
    },
    /// Rows were updated, but the expression or a trigger left them NULL.
    Refused {
        /// So many are.
        null: u64,
    },
    /// Every look found rows to fill.
    KeptComing {
        /// So many are NULL now.
        null: u64,
    },
}

impl Finding {
    /// How many rows are NULL still.
    pub fn null(self) -> u64 {
        match self {
            Finding::Verified { null }
            | Finding::Refused { null }
            | Finding::KeptComing { null } => null,
        }
    }
}

/// What a look over all blocks of a table has found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Rows to be filled.
    pub due: u64,
    /// A hash of where these rows are.
    pub digest: u64,
    /// Of those, filled since.
    pub filled: u64,
    /// Of those, updated but still NULL.
    pub refused: u64,
    /// Rows that are not to be filled, because the expression is NULL for them.
    pub without_value: u64,
}

impl Seen {
    /// Adds rows that are to be filled, in the order of their places.
    pub fn add(&mut self, rows: &[Tid]) {
        /// The prime of the FNV-1a hash of 64 bits.
        const PRIME: u64 = 0x0100_0000_01b3;
        self.due += rows.len() as u64;
        for tid in rows {
            let place = u64::from(tid.block) << 16 | u64::from(tid.offset);
            self.digest = (self.digest ^ place).wrapping_mul(PRIME);
        }
    }

    fn null(&self) -> u64 {
        self.due.saturating_sub(self.filled) + self.without_value
    }
}

/// What has happened to a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A window of its blocks is done, and others are left.
    WindowEnded,
    /// All its blocks were swept.
    Swept,
    /// All its blocks were looked at.
    Looked {
        /// What was found.
        seen: Seen,
        /// How many of the rows found are locked by others.
        held: usize,
    },
    /// Rows that others had locked were tried again.
    Asked {
        /// What was found by the last look, and filled since.
        seen: Seen,
        /// How many rows are still locked by others.
        held: usize,
    },
    /// It was rewritten into another file.
    Rewritten,
}

/// The state of filling one table.
#[derive(Debug, Clone)]
pub struct Machine {
    phase: Phase,
    looks: u32,
    /// The hash of what the previous look found.
    before: Option<u64>,
    /// Some rows were updated but are still NULL.
    refused: bool,
}

impl Machine {
    /// Begins with `phase`.
    pub fn new(phase: Phase) -> Self {
        Machine {
            phase,
            looks: 0,
            before: None,
            refused: false,
        }
    }

    /// The phase it is in.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Goes to the phase that follows; `true` if that is one that begins now.
    pub fn handle(&mut self, event: Event) -> bool {
        let next = match (self.phase, event) {
            (_, Event::Rewritten) => Phase::Filling,
            (Phase::Filling, Event::Swept) => Phase::Verifying,
            (Phase::Counting, Event::Looked { seen, .. }) => Phase::Done(self.counted(&seen)),
            (Phase::Verifying, Event::Looked { seen, held: 0 }) => self.after_look(&seen),
            (Phase::Verifying, Event::Looked { .. }) => Phase::Waiting,
            (Phase::Waiting, Event::Asked { seen, held: 0 }) => self.after_look(&seen),
            (phase, _) => return self.stay(phase),
        };
        if event == Event::Rewritten {
            *self = Machine::new(next);
        }
        self.phase = next;
        true
    }

    fn stay(&mut self, phase: Phase) -> bool {
        self.phase = phase;
        false
    }

    fn counted(&self, seen: &Seen) -> Finding {
        let null = seen.null();
        match seen.due {
            0 => Finding::Verified { null },
            _ if self.refused => Finding::Refused { null },
            _ => Finding::KeptComing { null },
        }
    }

    fn after_look(&mut self, seen: &Seen) -> Phase {
        let same = self.before.replace(seen.digest) == Some(seen.digest);
        self.looks += 1;
        if seen.due == 0 {
            return Phase::Done(Finding::Verified { null: seen.null() });
        }
        // If the same rows are found again, they were tried and stayed NULL. Otherwise they were moved by an update
        // between the look and the filling, or are new.
        if seen.filled == 0 && (seen.refused > 0 || same) {
            // An updated row has a new version elsewhere, which the same look may have met again; so the number is not
            // reliable, and a last look counts.
            self.refused = true;
            return Phase::Counting;
        }
        if self.looks < MOST_LOOKS {
            Phase::Verifying
        } else {
            Phase::Counting
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_seen() -> impl Strategy<Value = Seen> {
        (0u64..5, 0u64..3, 0u64..5, 0u64..3, 0u64..3).prop_map(
            |(due, digest, filled, refused, without_value)| Seen {
                due,
                digest,
                filled: filled.min(due),
                refused,
                without_value,
            },
        )
    }

    fn any_event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::WindowEnded),
            Just(Event::Swept),
            (any_seen(), 0usize..2).prop_map(|(seen, held)| Event::Looked { seen, held }),
            (any_seen(), 0usize..2).prop_map(|(seen, held)| Event::Asked { seen, held }),
        ]
    }

    /// What the effects make happen in a phase, if the look or the asking comes to this.
    fn ending(phase: Phase, seen: Seen, held: usize) -> Event {
        match phase {
            Phase::Filling => Event::Swept,
            Phase::Waiting => Event::Asked { seen, held },
            _ => Event::Looked { seen, held },
        }
    }

    proptest! {
        #[test]
        fn a_run_ends_whatever_the_looks_find(seen in prop::collection::vec(any_seen(), 20)) {
            let mut machine = Machine::new(Phase::Filling);
            let mut looks = 0;
            for seen in seen {
                looks += u32::from(matches!(machine.phase(), Phase::Verifying | Phase::Counting));
                machine.handle(ending(machine.phase(), seen, 0));
            }
            prop_assert!(matches!(machine.phase(), Phase::Done(_)));
            prop_assert!(looks <= MOST_LOOKS + 1);
        }

        #[test]
        fn only_a_look_that_found_nothing_verifies(events in prop::collection::vec(any_event(), 0..40)) {
            let mut machine = Machine::new(Phase::Filling);
            let mut last = None;
            for event in events {
                let before = machine.phase();
                machine.handle(event);
                if let (Event::Looked { seen, .. }, Phase::Verifying | Phase::Counting) = (event, before) {
                    last = Some(seen);
                }
                if let (Event::Asked { seen, .. }, Phase::Waiting) = (event, before) {
                    last = Some(seen);
                }
            }
            if let Phase::Done(Finding::Verified { null }) = machine.phase() {
                let last = last.expect("a look");
                prop_assert_eq!((last.due, last.without_value), (0, null));
            }
        }

        #[test]
        fn a_rewritten_table_is_begun_again(events in prop::collection::vec(any_event(), 0..40)) {
            let mut machine = Machine::new(Phase::Filling);
            for event in events {
                machine.handle(event);
            }
            machine.handle(Event::Rewritten);
            prop_assert_eq!(machine.phase(), Phase::Filling);
            prop_assert_eq!((machine.looks, machine.before), (0, None));
        }
    }

    #[test]
    fn rows_that_stay_where_they_are_have_refused() {
        let stubborn = Seen {
            due: 3,
            digest: 7,
            ..Seen::default()
        };
        let mut machine = Machine::new(Phase::Verifying);
        let looked = Event::Looked {
            seen: stubborn,
            held: 0,
        };
        machine.handle(looked);
        assert_eq!(machine.phase(), Phase::Verifying);
        machine.handle(looked);
        assert_eq!(machine.phase(), Phase::Counting);
        machine.handle(looked);
        assert_eq!(machine.phase(), Phase::Done(Finding::Refused { null: 3 }));
    }

    #[test]
    fn rows_that_are_held_are_waited_for() {
        let seen = Seen {
            due: 2,
            filled: 1,
            ..Seen::default()
        };
        let mut machine = Machine::new(Phase::Verifying);
        machine.handle(Event::Looked { seen, held: 1 });
        assert_eq!(machine.phase(), Phase::Waiting);
        assert!(!machine.handle(Event::Asked { seen, held: 1 }));
        assert!(machine.handle(Event::Asked { seen, held: 0 }));
        assert_eq!(machine.phase(), Phase::Verifying);
    }
}
