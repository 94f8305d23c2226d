//! What filling a column cost.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Result;
use postgres::Client;
use serde::Serialize;

use crate::latency::Latency;

/// The cost of one run.
#[derive(Debug, Clone, Serialize)]
pub struct Figures {
    /// How long it took.
    pub seconds: f64,
    /// Bytes of WAL written by the whole server meanwhile.
    pub wal_bytes: f64,
    /// By how many percent the main fork of the table grew.
    pub heap_growth: f64,
    /// By how many percent the indexes grew.
    pub index_growth: f64,
    /// How many percent of the updates, the application's included, were HOT.
    pub hot_share: f64,
    /// By how many kilobytes the private memory of the backend grew at most.
    pub memory_kilobytes: Option<f64>,
    /// How long the application waited.
    pub latency: Option<Latency>,
}

/// Takes the figures of what happens between its start and its stop.
#[derive(Debug)]
pub struct Watch {
    before: Size,
    started: Instant,
    from: SystemTime,
}

/// The figures of a run, and when it was.
#[derive(Debug)]
pub struct Watched {
    /// The figures that don't need a pause to settle.
    pub figures: Figures,
    /// When the run began.
    pub from: SystemTime,
    /// When it ended.
    pub to: SystemTime,
}

impl Watch {
    /// Starts to watch a table.
    pub fn start(monitor: &mut Client, table: &str) -> Result<Self> {
        Ok(Self {
            before: Size::of(monitor, table)?,
            from: SystemTime::now(),
            started: Instant::now(),
        })
    }

    /// Stops; the share of HOT updates, the memory and the latency are known later.
    pub fn stop(self, monitor: &mut Client, table: &str) -> Result<Watched> {
        let seconds = self.started.elapsed().as_secs_f64();
        let to = SystemTime::now();
        let after = Size::of(monitor, table)?;
        let growth = |before, after| (after / before - 1.0) * 100.0;
        Ok(Watched {
            figures: Figures {
                seconds,
                wal_bytes: after.wal - self.before.wal,
                heap_growth: growth(self.before.heap, after.heap),
                index_growth: growth(self.before.indexes, after.indexes),
                hot_share: 0.0,
                memory_kilobytes: None,
                latency: None,
            },
            from: self.from,
            to,
        })
    }
}

/// Sizes in bytes.
#[derive(Debug)]
struct Size {
    wal: f64,
    heap: f64,
    indexes: f64,
}

impl Size {
    fn of(monitor: &mut Client, table: &str) -> Result<Self> {
        let row = monitor.query_one(
            "SELECT (pg_current_wal_insert_lsn() - '0/0')::float8,
                    pg_relation_size($1::text::regclass)::float8,
                    pg_indexes_size($1::text::regclass)::float8",
            &[&table],
        )?;
        Ok(Self {
            wal: row.get(0),
            heap: row.get(1),
            indexes: row.get(2),
        })
    }
}

/// How many percent of all updates of a table were HOT. The sessions that did them must have ended.
pub fn hot_share(monitor: &mut Client, table: &str) -> Result<f64> {
    // A session hands its statistics over a moment after its client has gone.
    const SETTLE: Duration = Duration::from_millis(500);
    let mut seen = -1;
    loop {
        std::thread::sleep(SETTLE);
        let row = monitor.query_one(
            "SELECT n_tup_upd, coalesce(100.0 * n_tup_hot_upd / nullif(n_tup_upd, 0), 0)::float8
             FROM pg_stat_user_tables WHERE relid = $1::text::regclass",
            &[&table],
        )?;
        let updates: i64 = row.get(0);
        if updates == seen {
            return Ok(row.get(1));
        }
        seen = updates;
    }
}
