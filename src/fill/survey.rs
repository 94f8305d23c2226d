//! How many of the rows that are filled lack the column, counted on the way.

use std::cell::Cell;

use planner::page::Page;

/// A larger share than this is most of them.
const MOST: f64 = 0.5;

/// Counts the rows to be filled of each block once, when it is read first, and those of them that lack the column.
#[derive(Debug, Default, Clone)]
pub struct Survey {
    /// All blocks before this one have been read.
    next: Cell<u32>,
    rows: Cell<u64>,
    absent: Cell<u64>,
}

impl Survey {
    /// Tells that a block was read.
    pub fn saw(&self, block: u32, page: &Page) {
        if block < self.next.get() {
            return;
        }
        self.next.set(block + 1);
        self.rows.set(self.rows.get() + page.rows.len() as u64);
        self.absent.set(self.absent.get() + page.absent as u64);
    }

    /// Adds what was counted on another table.
    pub fn add(&self, other: &Self) {
        self.rows.set(self.rows.get() + other.rows.get());
        self.absent.set(self.absent.get() + other.absent.get());
    }

    /// The share of the rows that lacked the column, from 0 to 1, if it was most of them.
    pub fn mostly_absent(&self) -> Option<f64> {
        let share = self.absent.get() as f64 / self.rows.get().max(1) as f64;
        (share > MOST).then_some(share)
    }
}

#[cfg(test)]
mod tests {
    use planner::page::Growth;

    use super::*;

    #[test]
    fn each_block_is_counted_when_it_is_read_first() {
        let growth = Growth { bytes: 4, align: 4 };
        let page = |absent| Page {
            rows: vec![growth.row(1, 32), growth.row(2, 32)],
            absent,
            ..Page::default()
        };
        let survey = Survey::default();
        assert_eq!(survey.mostly_absent(), None);
        survey.saw(0, &page(2));
        survey.saw(1, &page(1));
        survey.saw(0, &page(0));
        assert_eq!(survey.mostly_absent(), Some(0.75));
        let all = Survey::default();
        all.add(&survey);
        assert_eq!(all.mostly_absent(), Some(0.75));
        all.saw(2, &page(0));
        assert_eq!(all.mostly_absent(), None);
    }
}
