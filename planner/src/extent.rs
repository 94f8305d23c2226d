//! How far a look goes on into blocks that were added to the table since it began.

/// The largest part of the blocks before them that added blocks may be: one in so many.
const PART: u32 = 2;

/// The end of a look over the blocks of a table.
///
/// Each piece that is added is at most half as long as the one before, so a look reads at most twice as many blocks as the
/// table had when it began, however fast the table grows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Extent {
    /// How many blocks the last piece has.
    piece: Option<u32>,
}

impl Extent {
    /// Where a look goes on to that has come to its `end`, when the table has so many `blocks`: that same end if it is over.
    pub fn extend(&mut self, end: u32, blocks: u32) -> u32 {
        let added = blocks.saturating_sub(end);
        if added > self.piece.unwrap_or(end) / PART {
            return end;
        }
        self.piece = Some(added);
        end + added
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_look_ends_however_fast_the_table_grows(
            first in 0u32..1_000_000, growth in prop::collection::vec(1u32..1_000_000, 40),
        ) {
            let mut extent = Extent::default();
            let mut end = first;
            for added in growth {
                let next = extent.extend(end, end + added);
                if next == end {
                    break;
                }
                end = next;
            }
            prop_assert!(end <= 2 * first);
        }

        #[test]
        fn a_look_reaches_the_end_of_a_table_that_grows_more_slowly_than_it_reads(
            first in 0u32..1_000_000, slower in 2u32..100,
        ) {
            let mut extent = Extent::default();
            let (mut end, mut added) = (first, first / slower);
            while added > 0 {
                let next = extent.extend(end, end + added);
                prop_assert_eq!(next, end + added);
                (end, added) = (next, added / slower);
            }
        }
    }

    #[test]
    fn a_table_that_does_not_grow_or_shrinks_ends_the_look() {
        let mut extent = Extent::default();
        assert_eq!(extent.extend(100, 100), 100);
        assert_eq!(extent.extend(100, 10), 100);
        assert_eq!(Extent::default().extend(0, 5), 0);
    }
}
