//! Pages of the leaf tables, sampled as if all leaves were one table.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use pgrx::pg_sys;
use planner::forecast::Sampled;
use planner::page::Growth;
use planner::sampling::{Drawn, Estimate, Tally};
use planner::window::Tid;

use crate::catalog::attribute::Attribute;
use crate::error::Error;
use crate::fill::statements::{Due, Hazards, LeafName, LeafStatements};
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::pg::failure::Failure;
use crate::pg::heap::{Column, Table};
use crate::pg::heap_sample::Looked;
use crate::pg::ring::Ring;
use crate::pg::tx::Tx;
use crate::pg::{interrupts, server};
use crate::plan::refusals::Proven;

/// Blocks that are read at most, of all leaves together: 16 MB.
const MOST_BLOCKS: u32 = 2048;
/// Rounds in which they are read, each of which is spread over the whole table.
const ROUNDS: usize = 8;
/// No other round begins after this time.
const READING_TIME: Duration = Duration::from_millis(1500);
/// Rows that one statement tries the filter and the expression on: few, so that a slow one ends in time.
const PROBED: usize = 200;
/// Bytes of a value of which nothing is known.
const GUESS: usize = 16;

/// What was read of one leaf table.
pub struct Leaf {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// How many blocks it has.
    pub blocks: u32,
    /// Updates of the column can be HOT.
    pub allows_hot: bool,
    /// The pages, in the order of their blocks.
    pub pages: Vec<Sampled>,
    /// Rows that it has, as far as the sample tells.
    pub rows: f64,
}

/// What was read of a table.
pub struct Sample {
    /// The leaves of which blocks were read.
    pub leaves: Vec<Leaf>,
    /// Blocks of all leaves.
    pub blocks: u64,
    /// Blocks that were read.
    pub read: u64,
    /// Rows to be filled.
    pub due: Estimate,
    /// Those of them that were written before the column was added.
    pub lacking: Estimate,
    /// Rows that are NULL and that the filter or the expression leaves so.
    pub left: Estimate,
    /// All rows.
    pub live: Estimate,
    /// Neither the filter nor the expression was tried.
    pub is_unfiltered: bool,
    /// Why the filter or the expression could not be tried on a row, which leaves out what it would.
    pub failure: Option<Failure>,
    /// By how much rows grow.
    pub growth: Growth,
}

/// Reads pages of all leaves.
///
/// # Errors
/// PostgreSQL's own, where it is the time that makes them, such as a cancellation.
pub fn take(tx: &Tx, proven: &Proven) -> Result<Sample, Error> {
    let target = &proven.target;
    let mut reader = Reader::new(tx, proven);
    let blocks: u64 = reader.leaves.iter().map(|leaf| u64::from(leaf.1)).sum();
    // More blocks than fit in 32 bits are numbered by units of several.
    let unit = blocks.div_ceil(u64::from(u32::MAX)).max(1);
    let units = (blocks / unit) as u32;
    let seed = u64::from(target.table.to_u32());
    let drawn = Drawn::new(units, MOST_BLOCKS, ROUNDS, seed);
    for round in drawn.rounds() {
        reader.read(round.map(|block| u64::from(block) * unit))?;
        if reader.began.elapsed() > READING_TIME {
            break;
        }
    }
    reader.read_missed()?;
    Ok(reader.sample(blocks))
}

struct Reader<'a> {
    tx: &'a Tx,
    target: &'a Target,
    value: Option<&'a Value>,
    growth: Growth,
    ring: Ring,
    /// Each leaf, with how many blocks it has.
    leaves: Vec<(pg_sys::Oid, u32)>,
    columns: HashMap<pg_sys::Oid, Attribute>,
    looked: BTreeMap<usize, BTreeMap<u32, Looked>>,
    allows_hot: HashMap<usize, bool>,
    failure: Option<Failure>,
    /// Leaves of which no block was drawn, and one was read to know what their rows are like: it does not count rows.
    missed: HashSet<usize>,
    began: Instant,
}

impl<'a> Reader<'a> {
    fn new(tx: &'a Tx, proven: &'a Proven) -> Self {
        let target = &proven.target;
        Reader {
            tx,
            target,
            value: proven.value.as_ref(),
            growth: growth(tx, proven),
            ring: Ring::for_reading(),
            leaves: sizes(tx, target),
            columns: Attribute::find_all(tx, &target.leaves, &target.column),
            looked: BTreeMap::new(),
            allows_hot: HashMap::new(),
            failure: None,
            missed: HashSet::new(),
            began: Instant::now(),
        }
    }

    /// Reads blocks that are numbered through all leaves, in ascending order.
    fn read(&mut self, blocks: impl Iterator<Item = u64>) -> Result<(), Error> {
        let mut by_leaf: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
        let (mut leaf, mut before) = (0, 0u64);
        for block in blocks {
            while let Some(&(_, size)) = self.leaves.get(leaf)
                && block >= before + u64::from(size)
            {
                before += u64::from(size);
                leaf += 1;
            }
            by_leaf
                .entry(leaf)
                .or_default()
                .push((block - before) as u32);
        }
        for (leaf, blocks) in by_leaf {
            self.read_leaf(leaf, &blocks)?;
        }
        Ok(())
    }

    /// Reads one block of each leaf of which none was drawn, while there is time.
    fn read_missed(&mut self) -> Result<(), Error> {
        for leaf in 0..self.leaves.len() {
            let blocks = self.leaves[leaf].1;
            if blocks == 0 || self.looked.contains_key(&leaf) {
                continue;
            }
            if self.began.elapsed() > 2 * READING_TIME {
                break;
            }
            self.missed.insert(leaf);
            self.read_leaf(leaf, &[blocks / 2])?;
        }
        Ok(())
    }

    fn read_leaf(&mut self, leaf: usize, blocks: &[u32]) -> Result<(), Error> {
        let Some(&(oid, _)) = self.leaves.get(leaf) else {
            return Ok(());
        };
        let Some(table) = Table::open_for_reading(self.tx, oid) else {
            return Ok(());
        };
        let number = self.columns.get(&oid).map(|attribute| attribute.number);
        let Some(column) = number.and_then(|number| table.column(number)) else {
            return Ok(());
        };
        self.allows_hot
            .insert(leaf, table.allows_hot(column.number));
        let end = table.blocks();
        let mut looked = BTreeMap::new();
        for &block in blocks {
            interrupts::check();
            // VACUUM may have cut the end of the table off.
            if block < end {
                let page = table.sample(block, &column, self.growth, &self.ring);
                looked.insert(block, page);
            }
        }
        self.leave_out(&table, &column, &mut looked);
        self.looked.entry(leaf).or_default().extend(looked);
        Ok(())
    }

    /// Leaves out the rows that the filter or the expression does. Pages that these are too slow to be tried on in time are
    /// taken for not read.
    fn leave_out(
        &mut self,
        table: &Table<'_>,
        column: &Column,
        looked: &mut BTreeMap<u32, Looked>,
    ) {
        let Some(value) = self.filtering().filter(|_| self.failure.is_none()) else {
            return;
        };
        let (schema, name) = table.name();
        let name = LeafName {
            oid: table.oid(),
            schema,
            name,
        };
        let target = Target {
            column: column.name.clone(),
            ..self.target.clone()
        };
        let hazards = Hazards::default();
        let statements = LeafStatements::prepare(self.tx, &name, &target, value, hazards);
        let tids = rows_to_try(looked);
        let (mut due, mut tried) = (HashSet::new(), 0);
        for tids in tids.chunks(PROBED) {
            interrupts::check();
            if tried > 0 && self.began.elapsed() > READING_TIME {
                break;
            }
            tried += tids.len();
            let probed = self.tx.attempt_if(
                |failure| !failure.is_passing(),
                || statements.probe(self.tx, tids),
            );
            let answers = match probed {
                Ok(answers) => answers.into_iter(),
                Err(failure) => {
                    self.failure = Some(failure);
                    return;
                }
            };
            let is_due = |is| is == Due::Yes || is == Due::WithoutValue && value.is_unknown();
            due.extend(answers.filter_map(|(tid, is)| is_due(is).then_some(tid)));
        }
        for untried in tids.iter().skip(tried) {
            looked.remove(&untried.block);
        }
        for (&block, page) in looked {
            let is_due = |offset| due.contains(&Tid { block, offset });
            page.sampled.page.rows.retain(|row| is_due(row.offset));
            page.lacking.retain(|&offset| is_due(offset));
        }
    }

    /// The value, if rows have to be tried. A standby does not give the lock that preparing an UPDATE takes.
    fn filtering(&self) -> Option<&'a Value> {
        let tries = |value: &&Value| value.tries_rows();
        self.value.filter(tries).filter(|_| !server::is_standby())
    }

    fn sample(self, blocks: u64) -> Sample {
        const MOST_ROWS: f64 = 291.0;
        let (mut due, mut lacking) = (Tally::default(), Tally::default());
        let (mut left, mut live) = (Tally::default(), Tally::default());
        let counted = self
            .looked
            .iter()
            .filter(|(leaf, _)| !self.missed.contains(leaf));
        for page in counted.flat_map(|(_, pages)| pages.values()) {
            due.add(page.sampled.page.rows.len());
            lacking.add(page.lacking.len());
            left.add(page.nulls.saturating_sub(page.sampled.page.rows.len()));
            live.add(page.sampled.live);
        }
        let read = due.blocks();
        let live = live.of_all(blocks, MOST_ROWS);
        let most = (live.rows / (blocks as f64).max(1.0)).max(1.0);
        let tries = self.value.is_some_and(Value::tries_rows);
        let is_unfiltered = tries && self.filtering().is_none();
        let leaves = self.looked.into_iter().filter_map(|(leaf, pages)| {
            let &(oid, blocks) = self.leaves.get(leaf)?;
            let pages: Vec<Sampled> = pages.into_values().map(|page| page.sampled).collect();
            let rows: usize = pages.iter().map(|page| page.live).sum();
            Some(Leaf {
                oid,
                blocks,
                allows_hot: *self.allows_hot.get(&leaf)?,
                rows: rows as f64 * f64::from(blocks) / pages.len().max(1) as f64,
                pages,
            })
        });
        Sample {
            leaves: leaves.collect(),
            blocks,
            read,
            due: due.of_all(blocks, most),
            lacking: lacking.of_all(blocks, most),
            left: left.of_all(blocks, most),
            live,
            is_unfiltered,
            failure: self.failure,
            growth: self.growth,
        }
    }
}

/// The rows of the pages, those of a page together, in an order that does not follow the table: trying may end anywhere.
fn rows_to_try(looked: &BTreeMap<u32, Looked>) -> Vec<Tid> {
    const GOLDEN: u32 = 0x9e37_79b9;
    let mut pages: Vec<_> = looked.iter().collect();
    pages.sort_unstable_by_key(|(block, _)| block.wrapping_mul(GOLDEN));
    let rows = pages.into_iter().flat_map(|(&block, page)| {
        let rows = page.sampled.page.rows.iter();
        rows.map(move |row| Tid {
            block,
            offset: row.offset,
        })
    });
    rows.collect()
}

fn sizes(tx: &Tx, target: &Target) -> Vec<(pg_sys::Oid, u32)> {
    const SIZES: &str = "
        SELECT oid, pg_relation_size(oid) / current_setting('block_size')::int8 FROM unnest($1) AS oid";
    let rows = tx.catalog(SIZES, &[&target.leaves]);
    let of = rows.iter().filter_map(|row| {
        let blocks: i64 = row.get(2)?;
        Some((row.get(1)?, u32::try_from(blocks).ok()?))
    });
    of.collect()
}

/// By how much a row grows: by the value, or by one as long as those that are there, or by a guess.
fn growth(tx: &Tx, proven: &Proven) -> Growth {
    const WIDTH: &str = "
        SELECT max(s.avg_width) FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename
        JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = s.schemaname
        WHERE c.oid = $1 AND s.attname = $2::name AND s.null_frac < 1";
    let target = &proven.target;
    let layout = target.column_type.layout(tx);
    let constant = proven.value.as_ref().filter(|value| !value.can_be_null());
    let bytes = match (constant, usize::try_from(layout.length)) {
        (Some(value), _) => value.bytes(tx, target.column_type),
        (None, Ok(length)) => length,
        (None, Err(_)) => {
            let width: Option<i32> =
                tx.catalog_value(WIDTH, &[&target.table, &target.column.as_str()]);
            width
                .and_then(|width| usize::try_from(width).ok())
                .unwrap_or(GUESS)
        }
    };
    Growth {
        bytes,
        align: layout.align,
    }
}
