//! What an operator would see during a migration: the size of the table, and how many sessions wait for a lock.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use anyhow::{Result, anyhow};
use postgres::Client;

const INTERVAL: Duration = Duration::from_millis(100);

const MOST_SEGMENTS: u32 = 32;

/// One look.
#[derive(Debug, Clone, Copy)]
pub struct Look {
    /// When it was.
    pub at: SystemTime,
    /// The table with its indexes.
    pub bytes: f64,
    /// Sessions that waited for a lock.
    pub waiting: f64,
}

/// Looks again and again, in the background.
#[derive(Debug)]
pub struct Monitor {
    done: Arc<AtomicBool>,
    thread: JoinHandle<Result<Vec<Look>>>,
}

impl Monitor {
    /// Starts to look at a table, in a session of its own that no lock on the table can hold up.
    pub fn start(mut client: Client, table: &str) -> Result<Self> {
        // Functions that take the table's size would wait for a lock on it; its files are looked at by name.
        let files: Vec<String> = client
            .query(
                "SELECT pg_relation_filepath(oid) FROM pg_class WHERE oid = $1::text::regclass
                 UNION ALL SELECT pg_relation_filepath(indexrelid) FROM pg_index WHERE indrelid = $1::text::regclass",
                &[&table],
            )?
            .iter()
            .map(|row| row.get(0))
            .collect();
        // A file of more than a gigabyte has several.
        let segments: Vec<_> = std::iter::once(String::new())
            .chain((1..MOST_SEGMENTS).map(|number| format!(".{number}")))
            .collect();
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut looks = vec![];
            while !stop.load(Ordering::Relaxed) {
                let row = client.query_one(
                    "SELECT (SELECT sum((pg_stat_file(file || segment, true)).size)::float8
                             FROM unnest($1::text[]) AS file, unnest($2::text[]) AS segment),
                            (SELECT count(DISTINCT pid)::float8 FROM pg_locks WHERE NOT granted)",
                    &[&files, &segments],
                )?;
                looks.push(Look {
                    at: SystemTime::now(),
                    bytes: row.get(0),
                    waiting: row.get(1),
                });
                std::thread::sleep(INTERVAL);
            }
            Ok(looks)
        });
        Ok(Self { done, thread })
    }

    /// Stops and returns what was seen.
    pub fn stop(self) -> Result<Vec<Look>> {
        self.done.store(true, Ordering::Relaxed);
        self.thread
            .join()
            .map_err(|_| anyhow!("the monitor failed"))?
    }
}
