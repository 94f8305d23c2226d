//! Pure: which rows of one heap page to take now.
//!
//! A HOT update needs room for the new row version on the same page. A full page gets that room by *evicting* a
//! few of its rows to other pages: once the evicted versions are pruned, the rest can be updated in place, a pageful
//! of free space at a time. The technique rests on heap-only tuples and page pruning as described in PostgreSQL's
//! `src/backend/access/heap/README.HOT`.

/// Bytes of one line pointer.
pub const LINE_POINTER: usize = 4;

/// Rows and free space of one heap page, as a pass sees them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Page {
    /// Bytes free for new row versions, their line pointers not included.
    pub free: usize,
    /// How many more line pointers the page can hold.
    pub line_pointers: usize,
    /// The rows still to be filled, by ascending offset, that nobody holds a lock on.
    pub rows: Vec<Row>,
    /// Offsets of rows still to be filled that another transaction holds.
    pub busy: Vec<u16>,
}

/// One row to be filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Its offset number on the page, from 1.
    pub offset: u16,
    /// Bytes its present version takes on the page, aligned.
    pub size: usize,
    /// Bytes its filled version will take on the page, aligned.
    pub filled_size: usize,
}

/// What a pass may do with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// Rows that fit; and at least this many, though the surplus moves to other pages.
    Recycle {
        /// Rows.
        evict: usize,
    },
    /// Every row, wherever the new versions go.
    Everything,
}

impl Page {
    /// How many of the page's rows, from the first, to take in this pass.
    pub fn take(&self, taking: Taking) -> usize {
        match taking {
            Taking::Everything => self.rows.len(),
            Taking::Recycle { .. } if self.line_pointers == 0 => self.rows.len(),
            Taking::Recycle { evict } => self.fitting().max(evict.min(self.rows.len())),
        }
    }

    /// How many rows, from the first, find room for their new versions on this page.
    pub fn fitting(&self) -> usize {
        let mut free = self.free;
        let mut fitting = 0;
        for row in self.rows.iter().take(self.line_pointers) {
            let needed = row.filled_size + LINE_POINTER;
            if needed > free {
                break;
            }
            free -= needed;
            fitting += 1;
        }
        fitting
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PAGE: usize = 8168;

    fn page(free: usize, line_pointers: usize, sizes: &[(usize, usize)]) -> Page {
        let rows = sizes
            .iter()
            .enumerate()
            .map(|(i, &(size, growth))| Row {
                offset: i as u16 + 1,
                size,
                filled_size: size + growth,
            })
            .collect();
        Page {
            free,
            line_pointers,
            rows,
            busy: vec![],
        }
    }

    fn any_page() -> impl Strategy<Value = Page> {
        let row = (3usize..60, 0usize..40).prop_map(|(size, growth)| (size * 8, growth * 8));
        (prop::collection::vec(row, 0..60), 0..PAGE, 0usize..291)
            .prop_map(|(sizes, free, pointers)| page(free, pointers, &sizes))
    }

    proptest! {
        #[test]
        fn never_takes_more_than_there_is(page in any_page(), evict in 0usize..100) {
            let taken = page.take(Taking::Recycle { evict });
            prop_assert!(taken <= page.rows.len());
            prop_assert!(taken >= evict.min(page.rows.len()));
            prop_assert_eq!(page.take(Taking::Everything), page.rows.len());
        }

        #[test]
        fn fitting_rows_fit(page in any_page()) {
            let fitting = page.fitting();
            let used: usize = page.rows[..fitting].iter().map(|r| r.filled_size + LINE_POINTER).sum();
            prop_assert!(used <= page.free);
            prop_assert!(fitting <= page.line_pointers);
        }

        #[test]
        fn moves_no_more_than_it_is_told(page in any_page(), evict in 0usize..100) {
            prop_assume!(page.line_pointers > 0);
            let moved = page.take(Taking::Recycle { evict }).saturating_sub(page.fitting());
            prop_assert!(moved <= evict);
        }
    }

    #[test]
    fn takes_what_fits_when_there_is_room() {
        let roomy = page(1000, 200, &[(112, 8); 60]);
        assert_eq!(roomy.fitting(), 8);
        assert_eq!(roomy.take(Taking::Recycle { evict: 5 }), 8);
    }

    #[test]
    fn evicts_rows_of_a_full_page() {
        let full = page(20, 200, &[(112, 0); 70]);
        assert_eq!(full.take(Taking::Recycle { evict: 6 }), 6);
        assert_eq!(full.take(Taking::Recycle { evict: 0 }), 0);
    }

    #[test]
    fn gives_up_on_a_page_without_line_pointers() {
        let crowded = page(500, 0, &[(32, 8); 50]);
        assert_eq!(crowded.take(Taking::Recycle { evict: 5 }), 50);
    }
}
