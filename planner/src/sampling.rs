//! Which blocks of a table to look at, and how far what they say may be from the truth.
//!
//! Every block has the same chance, as with the `BlockSampler` that PostgreSQL's ANALYZE uses. That looks at every number
//! of a block; Floyd's algorithm (Bentley, Programming Pearls: a sample of brilliance) takes as many steps as it draws blocks.

use std::collections::BTreeSet;

/// How many standard errors are on either side of an estimate, for an interval that has the truth in it 95 times of 100.
const STANDARD_ERRORS: f64 = 1.96;
/// If none of n blocks has a row, fewer than 3/n of all have one, with the same certainty ("rule of three").
const NONE_OF_N: f64 = 3.0;
/// Of a Poisson distribution of which n was drawn, the mean is at most n + 3 + 2.3 √n, with the same certainty or more.
const ROOT_OF_N: f64 = 2.3;

/// With so many blocks that have rows, their spread tells how far the estimate may be from the truth.
const MANY: f64 = 30.0;

/// Blocks drawn from those of a table, in several rounds, each of which is a sample of the whole table by itself.
///
/// So that reading may end after any round, if time is short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawn {
    blocks: Vec<u32>,
    rounds: usize,
}

impl Drawn {
    /// Draws `most` of `blocks` blocks, or all if there are no more. The same `seed` draws the same blocks.
    pub fn new(blocks: u32, most: u32, rounds: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut drawn = BTreeSet::new();
        for last in blocks - most.min(blocks)..blocks {
            let block = (random.next() * (f64::from(last) + 1.0)) as u32;
            if !drawn.insert(block) {
                drawn.insert(last);
            }
        }
        Drawn {
            blocks: drawn.into_iter().collect(),
            rounds: rounds.max(1),
        }
    }

    /// The blocks of each round, ascending.
    pub fn rounds(&self) -> impl Iterator<Item = impl Iterator<Item = u32> + '_> + '_ {
        (0..self.rounds).map(|round| {
            let blocks = self.blocks.iter().skip(round).step_by(self.rounds);
            blocks.copied()
        })
    }
}

/// A number of all rows, as a sample of blocks tells it.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Estimate {
    /// The most likely number.
    pub rows: f64,
    /// The truth is at most so many rows away, 95 times of 100.
    pub bound: f64,
}

/// Sums rows over blocks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    blocks: f64,
    sum: f64,
    squares: f64,
    /// Blocks that have rows.
    hits: f64,
}

impl Tally {
    /// Counts a block that has so many rows.
    pub fn add(&mut self, rows: usize) {
        let rows = rows as f64;
        self.blocks += 1.0;
        self.sum += rows;
        self.squares += rows * rows;
        self.hits += f64::from(u8::from(rows > 0.0));
    }

    /// How many blocks were counted.
    pub fn blocks(&self) -> u64 {
        self.blocks as u64
    }

    /// The rows of all `blocks` blocks. Each block is a cluster of rows, drawn without replacement (Cochran, Sampling
    /// Techniques, chapter 9). A block can have `most` rows.
    pub fn of_all(&self, blocks: u64, most: f64) -> Estimate {
        let all = blocks as f64;
        if self.blocks == 0.0 {
            return Estimate {
                rows: 0.0,
                bound: all * most,
            };
        }
        let mean = self.sum / self.blocks;
        if self.blocks >= all {
            return Estimate {
                rows: self.sum,
                bound: 0.0,
            };
        }
        let unseen = 1.0 - self.blocks / all;
        let variance = (self.squares - self.sum * mean).max(0.0) / (self.blocks - 1.0).max(1.0);
        let spread = STANDARD_ERRORS * all * (variance / self.blocks * unseen).sqrt();
        // Where few blocks have rows, or all have as many, others that have more may not have been drawn.
        let missed = match variance == 0.0 {
            true => NONE_OF_N,
            false if self.hits < MANY.min(self.blocks / 2.0) => {
                NONE_OF_N + ROOT_OF_N * self.hits.sqrt()
            }
            false => 0.0,
        };
        let rare = missed / self.blocks * all * unseen * most;
        Estimate {
            rows: mean * all,
            bound: spread.max(rare).min(all * most),
        }
    }
}

/// Numbers that look random: `splitmix64`, of which the same seed gives the same.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// From 0 to 1, less than 1.
    pub(crate) fn next(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(drawn: &Drawn) -> Vec<u32> {
        let mut blocks: Vec<u32> = drawn.rounds().flatten().collect();
        blocks.sort_unstable();
        blocks
    }

    proptest! {
        #[test]
        fn draws_as_many_different_blocks_as_asked(blocks in 0u32..5000, most in 0u32..600, rounds in 0usize..9, seed: u64) {
            let drawn = Drawn::new(blocks, most, rounds, seed);
            let mut seen = all(&drawn);
            prop_assert!(seen.iter().all(|&block| block < blocks));
            seen.dedup();
            prop_assert_eq!(seen.len() as u32, most.min(blocks));
            prop_assert_eq!(Drawn::new(blocks, most, rounds, seed), drawn);
        }

        #[test]
        fn every_round_is_spread_over_the_table(blocks in 2000u32..5000, seed: u64) {
            let drawn = Drawn::new(blocks, 400, 4, seed);
            for round in drawn.rounds() {
                let round: Vec<u32> = round.collect();
                prop_assert_eq!(round.len(), 100);
                prop_assert!(round[0] < blocks / 4 && round[99] > blocks / 4 * 3);
            }
        }

        #[test]
        fn a_whole_table_is_counted(rows in prop::collection::vec(0usize..200, 0..100)) {
            let mut tally = Tally::default();
            rows.iter().for_each(|&rows| tally.add(rows));
            let estimate = tally.of_all(rows.len() as u64, 200.0);
            prop_assert_eq!(estimate, Estimate { rows: rows.iter().sum::<usize>() as f64, bound: 0.0 });
        }
    }

    /// Of many samples of a table whose blocks differ, about 95 of 100 are within their bounds.
    #[test]
    fn the_truth_is_within_the_bound() {
        let rows: Vec<usize> = (0..20_000)
            .map(|block| block % 7 * (block / 5000))
            .collect();
        let truth: usize = rows.iter().sum();
        let within = (0..400u64).filter(|&seed| {
            let mut tally = Tally::default();
            let drawn = Drawn::new(20_000, 500, 1, seed.wrapping_mul(0x1234_5678_9abc));
            all(&drawn)
                .iter()
                .for_each(|&block| tally.add(rows[block as usize]));
            let estimate = tally.of_all(20_000, 18.0);
            (estimate.rows - truth as f64).abs() <= estimate.bound
        });
        let within = within.count();
        assert!((366..=394).contains(&within), "{within} of 400");
    }

    /// Rows that lie together on few blocks of many, of which a sample finds one, some, or none.
    #[test]
    fn the_truth_is_within_the_bound_though_few_blocks_have_rows() {
        for clustered in [2, 10, 60, 200] {
            let within = (0..400u64).filter(|&seed| {
                let mut tally = Tally::default();
                let drawn = Drawn::new(20_000, 500, 1, seed.wrapping_mul(0x1234_5678_9abc));
                let rows = |block: &u32| if *block < clustered { 100 } else { 0 };
                all(&drawn).iter().for_each(|block| tally.add(rows(block)));
                let estimate = tally.of_all(20_000, 100.0);
                (estimate.rows - f64::from(clustered) * 100.0).abs() <= estimate.bound
            });
            let within = within.count();
            assert!(within >= 366, "{clustered} blocks: {within} of 400");
        }
    }

    #[test]
    fn nothing_found_is_not_nothing_there() {
        let mut tally = Tally::default();
        (0..300).for_each(|_| tally.add(0));
        let estimate = tally.of_all(30_000, 10.0);
        assert_eq!(estimate.rows, 0.0);
        assert!((estimate.bound - 2970.0).abs() < 1.0, "{estimate:?}");
    }
}
