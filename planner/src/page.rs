//! Which rows of one heap page to update now.
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
    /// How many of `rows` lack the column: they were written before it was added.
    pub absent: usize,
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

impl Row {
    /// Bytes that its filled version takes, with a line pointer.
    fn needed(&self) -> usize {
        self.filled_size + LINE_POINTER
    }
}

/// How much a row grows when its column is filled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// Bytes of the value as stored in the row.
    pub bytes: usize,
    /// Bytes to which the value is aligned.
    pub align: usize,
}

/// Rows larger than this have values moved out of line (`TOAST_TUPLE_THRESHOLD`).
const TOAST_THRESHOLD: usize = 2032;
const TOAST_POINTER: usize = 18;

impl Growth {
    /// The row at `offset`, whose present version is `length` bytes long, header included.
    #[inline]
    pub fn row(self, offset: u16, length: usize) -> Row {
        Row {
            offset,
            size: max_align(length),
            filled_size: self.filled(length),
        }
    }

    #[inline]
    fn filled(self, length: usize) -> usize {
        let filled = length.next_multiple_of(self.align) + self.bytes;
        let filled = if filled > TOAST_THRESHOLD {
            filled.min(length.max(TOAST_THRESHOLD) + TOAST_POINTER)
        } else {
            filled
        };
        max_align(filled)
    }
}

/// The bytes that a tuple of this length takes on a page (`MAXALIGN`).
#[inline]
pub fn max_align(bytes: usize) -> usize {
    bytes.next_multiple_of(8)
}

/// What a pass may do with a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taking {
    /// Rows that fit, and rows that move to other pages until the next pass will find enough room.
    Recycle {
        /// How many rows the next pass should find room for.
        room: usize,
        /// The largest number of rows to move.
        evict: usize,
    },
    /// Every row, wherever the new versions go.
    Everything,
}

/// How many rows of a page, from the first, to take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Taken {
    /// All that are taken.
    pub rows: usize,
    /// How many of those, counted from the last, move to other pages to make room.
    pub evicted: usize,
}

impl Page {
    /// Which of the page's rows to take in this pass.
    pub fn take(&self, taking: Taking) -> Taken {
        let (staying, evicted) = match taking {
            Taking::Everything => (self.rows.len(), 0),
            Taking::Recycle { room, evict } => {
                let fitting = self.fitting();
                (fitting, self.evicted(fitting, room, evict))
            }
        };
        Taken {
            rows: staying + evicted,
            evicted,
        }
    }

    /// How many rows to move, at most `most`, after the first `fitting` rows are updated in place: so many that there
    /// is room for `room` others once the dead versions of all of them are pruned.
    fn evicted(&self, fitting: usize, room: usize, most: usize) -> usize {
        let (staying, rest) = self.rows.split_at(fitting);
        let Some(next) = rest.first() else {
            return 0;
        };
        // What the new versions of the rows that stay will need, line pointers included.
        let grown: usize = staying.iter().map(Row::needed).sum();
        let pruned: usize = staying.iter().map(|row| row.size).sum();
        let mut free = (self.free + pruned).saturating_sub(grown);
        let wanted = room * next.needed();
        rest.iter()
            .take(most)
            .take_while(|row| {
                let is_wanted = free < wanted;
                free += row.size;
                is_wanted
            })
            .count()
    }

    /// How many rows must leave in the end, however often the page is pruned, because filled rows are larger.
    pub fn crowded_out(&self) -> usize {
        let room: usize = self.free + self.rows.iter().map(|row| row.size).sum::<usize>();
        let mut needed = 0;
        let staying = self.rows.iter().take_while(|row| {
            needed += row.needed();
            needed <= room
        });
        self.rows.len() - staying.count()
    }

    /// How many rows, counted from the first, can have their new versions on this page.
    pub fn fitting(&self) -> usize {
        let mut free = self.free;
        let mut fitting = 0;
        for row in self.rows.iter().take(self.line_pointers) {
            if row.needed() > free {
                break;
            }
            free -= row.needed();
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
            absent: 0,
        }
    }

    fn any_page() -> impl Strategy<Value = Page> {
        let row = (3usize..60, 0usize..40).prop_map(|(size, growth)| (size * 8, growth * 8));
        (prop::collection::vec(row, 0..60), 0..PAGE, 0usize..291)
            .prop_map(|(sizes, free, pointers)| page(free, pointers, &sizes))
    }

    proptest! {
        #[test]
        fn never_takes_more_than_there_is(page in any_page(), room in 0usize..20, evict in 0usize..100) {
            let taken = page.take(Taking::Recycle { room, evict });
            prop_assert!(taken.rows <= page.rows.len());
            prop_assert!(taken.evicted <= evict);
            prop_assert_eq!(taken.rows - taken.evicted, page.fitting());
            prop_assert_eq!(page.take(Taking::Everything).rows, page.rows.len());
        }

        #[test]
        fn fitting_rows_fit(page in any_page()) {
            let fitting = page.fitting();
            let used: usize = page.rows[..fitting].iter().map(|r| r.filled_size + LINE_POINTER).sum();
            prop_assert!(used <= page.free);
            prop_assert!(fitting <= page.line_pointers);
        }

        #[test]
        fn rows_that_are_not_crowded_out_fit_together(page in any_page()) {
            let staying = &page.rows[..page.rows.len() - page.crowded_out()];
            let room: usize = page.free + page.rows.iter().map(|r| r.size).sum::<usize>();
            let needed = |rows: &[Row]| rows.iter().map(Row::needed).sum::<usize>();
            prop_assert!(needed(staying) <= room);
            prop_assert!(page.crowded_out() == 0 || needed(&page.rows[..=staying.len()]) > room);
        }

        #[test]
        fn moves_no_row_in_vain(page in any_page(), room in 0usize..20) {
            let taken = page.take(Taking::Recycle { room, evict: 1000 });
            prop_assume!(taken.evicted > 0);
            let fewer = Taking::Recycle { room, evict: taken.evicted - 1 };
            prop_assert!(page.take(fewer).rows == taken.rows - 1);
        }
    }

    fn recycle(room: usize, evict: usize) -> Taking {
        Taking::Recycle { room, evict }
    }

    #[test]
    fn takes_what_fits_when_there_is_room() {
        let roomy = page(1000, 200, &[(112, 8); 60]);
        assert_eq!(
            roomy.take(recycle(5, 5)),
            Taken {
                rows: 8,
                evicted: 0
            }
        );
    }

    #[test]
    fn evicts_rows_of_a_full_page() {
        let full = page(20, 200, &[(112, 0); 70]);
        assert_eq!(full.take(recycle(6, 10)).evicted, 7);
        assert_eq!(full.take(recycle(6, 6)).evicted, 6);
        assert_eq!(full.take(recycle(6, 0)).rows, 0);
    }

    #[test]
    fn makes_up_for_rows_that_grow() {
        // Eight stay, and take twice as much when the ninth and others come.
        let growing = page(8 * 204, 200, &[(100, 100); 40]);
        assert_eq!(
            growing.take(recycle(8, 10)),
            Taken {
                rows: 17,
                evicted: 9
            }
        );
    }

    #[test]
    fn a_page_without_line_pointers_has_no_room() {
        let crowded = page(500, 0, &[(32, 8); 50]);
        assert_eq!(crowded.take(recycle(5, 5)).evicted, 0);
    }
}
