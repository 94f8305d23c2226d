//! Whether recycling pages pays off on a table, judged by the share of HOT updates.
//!
//! Recycling makes room so that updates can be HOT. Where they cannot be HOT, for instance because a trigger sets an
//! indexed column, moving rows would gain nothing.

/// Recycling is given up if the share of HOT updates on recycled pages is smaller than this.
const LEAST_SHARE: f64 = 0.25;
/// The least number of rows to judge by.
const ENOUGH_ROWS: u64 = 200;
/// Once given up, it is tried again after this many windows: the trigger may have been dropped.
const PROBE_EVERY: u32 = 16;

/// What is known of a table's updates.
#[derive(Debug, Clone, Default)]
pub struct Recycling {
    rows: u64,
    hot: u64,
    /// Windows to go until it is tried again.
    pause: u32,
}

impl Recycling {
    /// Begins a window. Returns whether to recycle its pages.
    pub fn next_window(&mut self) -> bool {
        (self.rows, self.hot) = (0, 0);
        self.pause = self.pause.saturating_sub(1);
        self.pause == 0
    }

    /// Counts `rows` rows updated on recycled pages, `hot` of them by HOT updates. Returns `false` when it is time to
    /// give up.
    pub fn pays(&mut self, rows: u64, hot: u64) -> bool {
        self.rows += rows;
        self.hot += hot;
        if self.rows < ENOUGH_ROWS || self.hot as f64 >= LEAST_SHARE * self.rows as f64 {
            return true;
        }
        self.pause = PROBE_EVERY;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// How many of so many windows are recycled, when of each ten rows so many are updated HOT.
    fn recycled(windows: u32, hot_of_ten: u64) -> u32 {
        let mut recycling = Recycling::default();
        (0..windows)
            .filter(|_| {
                let recycle = recycling.next_window();
                if recycle {
                    (0..100).any(|_| !recycling.pays(10, hot_of_ten));
                }
                recycle
            })
            .count() as u32
    }

    #[test]
    fn hot_updates_pay() {
        assert_eq!(recycled(100, 10), 100);
        assert_eq!(recycled(100, 3), 100);
    }

    #[test]
    fn cold_updates_are_found_out_and_tried_again_now_and_then() {
        assert_eq!(recycled(1, 0), 1);
        assert_eq!(recycled(PROBE_EVERY, 0), 1);
        assert_eq!(recycled(PROBE_EVERY + 1, 2), 2);
        assert_eq!(recycled(100 * PROBE_EVERY, 0), 100);
    }

    #[test]
    fn a_table_that_becomes_hot_is_recycled_again() {
        let mut recycling = Recycling::default();
        assert!(recycling.next_window());
        assert!(!recycling.pays(ENOUGH_ROWS, 0));
        let waited = (0..).take_while(|_| !recycling.next_window()).count();
        assert_eq!(waited as u32, PROBE_EVERY - 1);
        assert!(recycling.pays(ENOUGH_ROWS, ENOUGH_ROWS));
        assert!(recycling.next_window());
    }

    proptest! {
        #[test]
        fn a_few_cold_rows_prove_nothing(rows in 0..ENOUGH_ROWS) {
            let mut recycling = Recycling::default();
            recycling.next_window();
            prop_assert!(recycling.pays(rows, 0));
        }
    }
}
