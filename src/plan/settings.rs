//! What the server's settings and its earlier backfills tell of the cost.

use std::collections::HashMap;

use pgrx::pg_sys;
use planner::forecast::{Logging, Speed};

use crate::error::Error;
use crate::job::home::Home;
use crate::pg::server;
use crate::pg::tx::Tx;

/// A server of which nothing is known: a local disk, a processor of this decade. `make bench` measures such ones.
const UNKNOWN: Speed = Speed {
    row: 1e-6,
    entry: 2e-6,
    wal_byte: 2e-9,
    block: 10e-6,
};
/// Backfills of fewer rows tell nothing of a server's speed.
const ENOUGH_ROWS: i64 = 10_000;
/// How large a full page image usually is after compression, of what it was.
const COMPRESSED: f64 = 0.5;

/// What is set for the server as a whole.
pub struct Server {
    full_page_writes: bool,
    image_share: f64,
    checkpoint_bytes: f64,
    decodes: bool,
    /// `max_wal_size`, in bytes.
    pub max_wal_size: f64,
}

impl Server {
    /// Looks it up.
    pub fn look_up(tx: &Tx) -> Self {
        const SETTINGS: &str = "
            SELECT current_setting('full_page_writes')::boolean, current_setting('wal_compression') <> 'off',
                   pg_size_bytes(current_setting('max_wal_size')),
                   current_setting('checkpoint_completion_target')::float8, current_setting('wal_level') = 'logical'";
        let rows = tx.catalog(SETTINGS, &[]);
        let row = rows.first();
        let truth = |number| row.and_then(|row| row.get(number)).unwrap_or(false);
        let max_wal_size = row.and_then(|row| row.get::<i64>(3)).unwrap_or_default() as f64;
        let target: f64 = row.and_then(|row| row.get(4)).unwrap_or_default();
        Server {
            full_page_writes: truth(1),
            image_share: if truth(2) { COMPRESSED } else { 1.0 },
            // As `CalculateCheckpointSegments` in xlog.c.
            checkpoint_bytes: max_wal_size / (1.0 + target),
            decodes: truth(5),
            max_wal_size,
        }
    }

    /// Full page images are compressed, by an unknown share.
    pub fn compresses(&self) -> bool {
        self.image_share < 1.0
    }

    /// How changes of a table are logged.
    pub fn logging(&self, table: Table) -> Logging {
        Logging {
            is_logged: table.is_logged,
            full_page_writes: self.full_page_writes,
            image_share: self.image_share,
            checkpoint_bytes: self.checkpoint_bytes,
            whole_rows: self.decodes,
            old_rows: self.decodes && table.identifies_by_all,
        }
    }
}

/// What the catalogs say of a leaf table.
#[derive(Clone, Copy)]
pub struct Table {
    /// Bytes that its fillfactor keeps free on a page.
    pub kept_free: usize,
    /// It is neither unlogged nor temporary.
    pub is_logged: bool,
    /// Its replica identity is FULL.
    identifies_by_all: bool,
}

/// What the catalogs say of these tables.
pub fn tables(tx: &Tx, tables: Vec<pg_sys::Oid>) -> HashMap<pg_sys::Oid, Table> {
    const TABLES: &str = "
        SELECT c.oid, c.relpersistence = 'p', c.relreplident = 'f',
               coalesce((SELECT option_value::integer FROM pg_options_to_table(c.reloptions)
                         WHERE option_name = 'fillfactor'), 100)
        FROM pg_class c WHERE c.oid = ANY ($1)";
    let rows = tx.catalog(TABLES, &[&tables]);
    let of = rows.iter().filter_map(|row| {
        let fillfactor = row.get::<i32>(4)?.clamp(10, 100) as usize;
        let table = Table {
            is_logged: row.get(2)?,
            identifies_by_all: row.get(3)?,
            kept_free: planner::forecast::PAGE * (100 - fillfactor) / 100,
        };
        Some((row.get(1)?, table))
    });
    of.collect()
}

/// How fast the server is, and by how many rows that is known.
pub fn speed(tx: &Tx, home: &Home) -> Result<(Speed, Option<u64>), Error> {
    // How many entries a row got is known of tables that are still there.
    const SPEED: &str = "
        SELECT sum(rows_filled)::bigint, sum(wal_bytes)::bigint, sum(end_block)::bigint,
               extract(epoch FROM sum(active_time))::float8,
               sum((rows_filled - rows_hot) * (SELECT count(*) FROM pg_index i WHERE i.indrelid = part.table_name))::bigint
        FROM (SELECT p.* FROM @part p JOIN pg_class c ON c.oid = p.table_name
              WHERE p.system_identifier = $1 AND p.rows_filled >= $2 AND p.active_time > '0'
              ORDER BY updated_at DESC LIMIT 20) part";
    let rows = home.execute(tx, SPEED, &[&server::system_identifier(), &ENOUGH_ROWS])?;
    let row = rows.first();
    let number = |number| {
        row.and_then(|row| row.get::<i64>(number))
            .unwrap_or_default() as f64
    };
    let seconds: f64 = row.and_then(|row| row.get(4)).unwrap_or_default();
    let foreseen = number(1) * UNKNOWN.row
        + number(5) * UNKNOWN.entry
        + number(2) * UNKNOWN.wal_byte
        + 2.0 * number(3) * UNKNOWN.block;
    if seconds <= 0.0 || foreseen <= 0.0 {
        return Ok((UNKNOWN, None));
    }
    let times = seconds / foreseen;
    let speed = Speed {
        row: UNKNOWN.row * times,
        entry: UNKNOWN.entry * times,
        wal_byte: UNKNOWN.wal_byte * times,
        block: UNKNOWN.block * times,
    };
    Ok((speed, Some(number(1) as u64)))
}
