//! The indexes of the leaf tables, of which some leaves are read.

use std::collections::HashMap;

use pgrx::pg_sys;
use planner::forecast::{Index, Kind, Leaf, Order};
use planner::sampling::Drawn;

use crate::pg::btree::{BTree, Contents, Page};
use crate::pg::interrupts;
use crate::pg::ring::Ring;
use crate::pg::spi::Row;
use crate::pg::tx::Tx;

/// Pages that are read at most, of all indexes of all leaf tables together, and of one.
const MOST_PAGES: u32 = 2048;
const MOST_OF_ONE: u32 = 1024;
const LEAST_OF_ONE: u32 = 8;

/// An index by its name.
pub struct Named {
    /// Its name.
    pub name: String,
    /// Its access method.
    pub method: String,
    /// What the forecast is to know of it.
    pub index: Index,
    is_sampled: bool,
}

impl Named {
    /// Its growth follows from its pages, not just from its size.
    pub fn is_sampled(&self) -> bool {
        self.is_sampled
    }
}

const INDEXES: &str = "
    SELECT i.indrelid, i.indexrelid, c.relname::text, m.amname::text, pg_relation_size(i.indexrelid),
           NOT coalesce('deduplicate_items=off' = ANY (c.reloptions), false),
           a.attnum = ANY (i.indkey::int2[])
           OR EXISTS (SELECT FROM pg_depend d
                      WHERE d.classid = 'pg_class'::regclass AND d.objid = i.indexrelid
                      AND d.refclassid = d.classid AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum)
    FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid
    JOIN pg_am m ON m.oid = c.relam
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = $2::name
    WHERE i.indrelid = ANY ($1) AND i.indisready AND c.relkind = 'i'
    ORDER BY c.relname";

/// The indexes of these tables, each of which has so many rows.
pub fn of(
    tx: &Tx,
    rows: &HashMap<pg_sys::Oid, f64>,
    column: &str,
) -> HashMap<pg_sys::Oid, Vec<Named>> {
    let tables: Vec<pg_sys::Oid> = rows.keys().copied().collect();
    let found = tx.catalog(INDEXES, &[&tables, &column]);
    let described: Vec<Described> = found.iter().filter_map(|row| Described::of(&row)).collect();
    let count = described.len().max(1) as u32;
    let each = (MOST_PAGES / count).clamp(LEAST_OF_ONE, MOST_OF_ONE);
    let ring = Ring::for_reading();
    let mut left = MOST_PAGES;
    let mut of: HashMap<pg_sys::Oid, Vec<Named>> = HashMap::new();
    for described in described {
        let most = each.min(left);
        left -= most;
        let rows = rows.get(&described.table).copied().unwrap_or_default();
        let (table, named) = (described.table, described.look(tx, rows, most, &ring));
        of.entry(table).or_default().push(named);
    }
    of
}

struct Described {
    table: pg_sys::Oid,
    oid: pg_sys::Oid,
    name: String,
    method: String,
    bytes: f64,
    may_deduplicate: bool,
    has_column: bool,
}

impl Described {
    fn of(row: &Row<'_>) -> Option<Self> {
        Some(Described {
            table: row.get(1)?,
            oid: row.get(2)?,
            name: row.get(3)?,
            method: row.get(4)?,
            bytes: row.get::<i64>(5)? as f64,
            may_deduplicate: row.get(6)?,
            has_column: row.get(7)?,
        })
    }

    fn look(self, tx: &Tx, rows: f64, most: u32, ring: &Ring) -> Named {
        let looked = match self.method.as_str() {
            "btree" if most > 0 => {
                BTree::open(tx, self.oid).map(|index| Looked::at(&index, most, self.oid, ring))
            }
            _ => None,
        };
        let looked = looked.filter(|looked| !looked.leaves.is_empty());
        let is_sampled = looked.is_some();
        let (kind, share, order) = match (looked, self.method.as_str()) {
            (Some(looked), _) => {
                let deduplicates = self.may_deduplicate;
                (
                    looked.kind(deduplicates),
                    looked.share(rows),
                    looked.order(),
                )
            }
            (None, "brin") => (Kind::Summary, 1.0, Order::Random),
            (None, _) => (Kind::Other, 1.0, Order::Random),
        };
        Named {
            name: self.name,
            method: self.method,
            is_sampled,
            index: Index {
                kind,
                bytes: self.bytes,
                share,
                order,
                has_column: self.has_column,
            },
        }
    }
}

/// What was read of a B-tree.
#[derive(Default)]
struct Looked {
    leaves: Vec<Leaf>,
    contents: Contents,
    goes_on: usize,
    empty: usize,
    read: usize,
    blocks: u32,
    equal_keys_are_same: bool,
}

impl Looked {
    fn at(index: &BTree<'_>, most: u32, oid: pg_sys::Oid, ring: &Ring) -> Self {
        let blocks = index.blocks();
        let mut looked = Looked {
            blocks,
            equal_keys_are_same: index.equal_keys_are_same(ring),
            ..Looked::default()
        };
        for block in Drawn::new(blocks, most, 1, u64::from(oid.to_u32()))
            .rounds()
            .flatten()
        {
            interrupts::check();
            looked.read += 1;
            match index.page(block, ring) {
                Page::Leaf(leaf, contents) => looked.add(leaf, contents),
                Page::Empty => looked.empty += 1,
                Page::Other => {}
            }
        }
        looked
    }

    fn add(&mut self, leaf: Leaf, contents: Contents) {
        self.leaves.push(leaf);
        self.contents.tuples += contents.tuples;
        self.contents.bytes += contents.bytes;
        self.contents.keys += contents.keys;
        self.contents.near += contents.near;
        self.goes_on += usize::from(contents.goes_on);
    }

    fn rows(&self) -> usize {
        self.leaves.iter().map(|leaf| leaf.rows).sum()
    }

    /// Pages of the whole index like those that were counted among the ones read.
    fn all(&self, counted: usize) -> f64 {
        counted as f64 * f64::from(self.blocks) / self.read.max(1) as f64
    }

    fn shares_keys(&self) -> bool {
        self.rows() > 2 * self.contents.keys
    }

    fn kind(&self, may_deduplicate: bool) -> Kind {
        Kind::BTree {
            leaves: self.leaves.clone(),
            pages: self.all(self.leaves.len()),
            empty: self.all(self.empty),
            entry: self.contents.bytes / self.contents.tuples.max(1),
            deduplicates: may_deduplicate && self.equal_keys_are_same,
            shares_keys: self.shares_keys(),
        }
    }

    /// The part of the table's rows that it has.
    fn share(&self, rows: f64) -> f64 {
        let entries = self.all(self.rows());
        // A sample is not exact.
        match entries / rows.max(1.0) {
            share if share > 0.9 => 1.0,
            share => share,
        }
    }

    fn order(&self) -> Order {
        let steps = self.contents.keys.saturating_sub(self.leaves.len());
        let keys = self
            .all(self.contents.keys.saturating_sub(self.goes_on))
            .max(1.0);
        match () {
            () if self.shares_keys() && steps < self.leaves.len() => Order::Keys(keys as u64),
            () if self.contents.near * 2 > steps => Order::Rows,
            () if self.shares_keys() => Order::Keys(keys as u64),
            () => Order::Random,
        }
    }
}
