//! What it costs: rows, updates, growth, WAL, time.

use std::collections::HashMap;
use std::time::Duration;

use planner::forecast::{Forecast, Horizon, PAGE, Survey};

use crate::error::Error;
use crate::fill::leaf_table::WORTH_RECYCLING;
use crate::fill::state::most_in_flight;
use crate::messages::amounts::{approximately, seconds, size};
use crate::pg::failure::Failure;
use crate::pg::interrupts;
use crate::pg::tx::Tx;
use crate::plan::finding::{Finding, Verdict};
use crate::plan::indexes::{self, Named};
use crate::plan::instant;
use crate::plan::refusals::{Proven, of_failure};
use crate::plan::sample::{self, Leaf, Sample};
use crate::plan::settings::{self as server_settings, Server};
use crate::settings;

/// So many indexes are named.
const MOST_NAMED: usize = 5;
/// Less than this of a table or index is next to nothing.
const NEXT_TO_NOTHING: f64 = 0.01;
/// A table or index that grows by more than this is worth a warning.
const MUCH: f64 = 0.25;
/// But not if it is less than this, in bytes.
const LITTLE: f64 = 16.0 * 1024.0 * 1024.0;

/// What was found out of the whole table.
struct Costs {
    sample: Sample,
    forecast: Forecast,
    /// What it would be if nobody held the horizon.
    otherwise: Option<Forecast>,
    indexes: Vec<Named>,
    allows_hot: bool,
    server: Server,
    /// By how many rows the speed is known.
    known_by: Option<u64>,
}

/// Reads pages of table and indexes, and forecasts.
///
/// # Errors
/// Those of [`sample::take`].
pub fn find(tx: &Tx, proven: &Proven, horizon: Horizon) -> Result<Vec<Finding>, Error> {
    let costs = Costs::reckon(tx, proven, horizon)?;
    let mut findings = vec![costs.rows()];
    findings.extend(costs.sample.failure.clone().map(of_row));
    findings.extend(costs.left());
    findings.push(instant::finding(
        tx,
        proven,
        costs.sample.due,
        costs.sample.lacking,
    ));
    if costs.sample.due.rows > 0.0 {
        findings.extend([
            costs.hot(proven),
            costs.heap(),
            costs.index_growth(),
            costs.wal(),
            costs.batches(proven),
            costs.time(),
            costs.disk(),
        ]);
    }
    Ok(findings)
}

/// What a row that was read did to the filter or the expression, as it would to a backfill.
fn of_row(failure: Failure) -> Finding {
    let finding = of_failure(failure);
    Finding {
        finding: format!("at one of the rows that were read: {}", finding.finding),
        advice: finding.advice.or_else(|| {
            Some(
                "Repair such rows, or leave them out by a filter; a backfill would stop there."
                    .into(),
            )
        }),
        ..finding
    }
}

impl Costs {
    fn reckon(tx: &Tx, proven: &Proven, horizon: Horizon) -> Result<Self, Error> {
        let mut sample = sample::take(tx, proven)?;
        let rows: HashMap<_, _> = sample
            .leaves
            .iter()
            .map(|leaf| (leaf.oid, leaf.rows))
            .collect();
        let mut indexes = indexes::of(tx, &rows, &proven.target.column);
        let oids = rows.into_keys().collect();
        let tables = server_settings::tables(tx, oids);
        let server = Server::look_up(tx);
        let (speed, known_by) = server_settings::speed(tx, &proven.home)?;
        let mut costs = Costs {
            forecast: Forecast::default(),
            otherwise: (horizon == Horizon::Held).then(Forecast::default),
            indexes: vec![],
            allows_hot: sample.leaves.iter().all(|leaf| leaf.allows_hot),
            server,
            known_by,
            sample: Sample {
                leaves: vec![],
                ..sample
            },
        };
        for leaf in std::mem::take(&mut sample.leaves) {
            interrupts::check();
            let Some(&table) = tables.get(&leaf.oid) else {
                continue;
            };
            let named = indexes.remove(&leaf.oid).unwrap_or_default();
            let Leaf { pages, .. } = leaf;
            let mut survey = Survey {
                blocks: leaf.blocks,
                pages,
                allows_hot: leaf.allows_hot,
                least_blocks: WORTH_RECYCLING,
                kept_free: table.kept_free,
                horizon,
                indexes: named.iter().map(|named| named.index.clone()).collect(),
                value_bytes: costs.sample.growth.bytes,
                logging: costs.server.logging(table),
                batch_size: usize::try_from(proven.batch_size).unwrap_or(1).max(1),
                batch_time: settings::max_batch_time(),
                most_in_flight: most_in_flight(1),
                patience: settings::horizon_patience(),
                speed,
            };
            costs.forecast += Forecast::of(&survey);
            costs.indexes.extend(named);
            if let Some(otherwise) = &mut costs.otherwise {
                survey.horizon = Horizon::Moves;
                *otherwise += Forecast::of(&survey);
            }
        }
        Ok(costs)
    }

    fn rows(&self) -> Finding {
        let sample = &self.sample;
        let how = match sample.read >= sample.blocks {
            true => match sample.blocks {
                1 => "its only block was read".into(),
                blocks => format!("all {blocks} blocks were read"),
            },
            false => format!(
                "{} of {} blocks were read; the bound holds 95 times of 100",
                sample.read, sample.blocks
            ),
        };
        let of = match sample.live.bound > 0.0 {
            true => format!("of about {:.0}", sample.live.rows),
            false => format!("of {:.0}", sample.live.rows),
        };
        let finding = format!("{} {of} ({how})", approximately(sample.due));
        const TOPIC: &str = "rows to fill";
        match () {
            () if sample.is_unfiltered => Finding::of(
                Verdict::Note,
                TOPIC,
                format!(
                    "{finding}; all that are NULL, since neither filter nor expression can be tried on a standby"
                ),
                "Ask on the primary server.",
            ),
            () if sample.left.rows > 0.0 => Finding::note(TOPIC, finding),
            () if sample.due.rows == 0.0 && sample.due.bound == 0.0 => Finding::of(
                Verdict::Ok,
                TOPIC,
                format!("{finding}: no backfill is needed"),
                "Go on with safe_set_not_null.",
            ),
            () if sample.due.rows == 0.0 => Finding::of(
                Verdict::Ok,
                TOPIC,
                format!("{finding}: a backfill may not be needed"),
                "Run it all the same: it reads the whole table, and ends soon if nothing is to be done.",
            ),
            () => Finding::note(TOPIC, finding),
        }
    }

    /// Rows that are NULL before and after.
    fn left(&self) -> Option<Finding> {
        let left = self.sample.left;
        (left.rows > 0.0).then(|| {
            Finding::of(
                Verdict::Warning,
                "rows left NULL",
                format!(
                    "{} that the filter or the expression leaves NULL",
                    approximately(left)
                ),
                "Fill them by another backfill before safe_set_not_null, which would fail.",
            )
        })
    }

    fn hot(&self, proven: &Proven) -> Finding {
        const TOPIC: &str = "HOT updates";
        let forecast = &self.forecast;
        let share = forecast.hot / forecast.rows.max(1.0);
        let share = format!(
            "{:.0} % of the updates; {:.0} rows move to other pages",
            100.0 * share,
            forecast.moved
        );
        if !self.allows_hot {
            let with_column = self.indexes.iter().filter(|named| named.index.has_column);
            let names: Vec<_> = with_column
                .map(|named| format!("\"{}\"", named.name))
                .take(MOST_NAMED)
                .collect();
            return Finding::of(
                Verdict::Warning,
                TOPIC,
                format!(
                    "{share}: column \"{}\" is used by index {}",
                    proven.target.column,
                    names.join(", ")
                ),
                "Drop that index first, and create it CONCURRENTLY when the backfill is done, if the application can do without it meanwhile.",
            );
        }
        match &self.otherwise {
            Some(otherwise) => Finding::of(
                Verdict::Warning,
                TOPIC,
                format!("{share}, since the xmin horizon is held back"),
                format!(
                    "If it were not, {:.0} % would be HOT: the table would grow by {}, its indexes by {}, with {} of WAL.",
                    100.0 * otherwise.hot / otherwise.rows.max(1.0),
                    size(otherwise.heap_bytes),
                    size(otherwise.index_bytes.iter().sum()),
                    size(otherwise.wal_bytes)
                ),
            ),
            None => Finding::ok(TOPIC, share),
        }
    }

    fn heap(&self) -> Finding {
        let before = self.sample.blocks as f64 * PAGE as f64;
        let grown = self.forecast.heap_bytes;
        growth(
            "table size",
            format!("grows {}", by(grown, before)),
            (grown, before),
            "Fill it when no transaction is open for long, and VACUUM it afterwards.",
        )
    }

    fn index_growth(&self) -> Finding {
        const TOPIC: &str = "index size";
        if self.indexes.is_empty() {
            return Finding::ok(TOPIC, "there is no index");
        }
        let before: f64 = self.indexes.iter().map(|named| named.index.bytes).sum();
        let grown: f64 = self.forecast.index_bytes.iter().sum();
        let mut each: Vec<_> = self
            .indexes
            .iter()
            .zip(&self.forecast.index_bytes)
            .collect();
        each.sort_by(|a, b| b.1.total_cmp(a.1));
        let most = each
            .iter()
            .filter(|(named, grown)| **grown > NEXT_TO_NOTHING * named.index.bytes);
        let named: Vec<_> = most
            .take(MOST_NAMED)
            .map(|(named, grown)| {
                let guessed = match named.is_sampled() {
                    true => String::new(),
                    false => format!(", a guess for {}", named.method),
                };
                format!("\"{}\" by {}{guessed}", named.name, size(**grown))
            })
            .collect();
        let which = match named.is_empty() {
            true => String::new(),
            false => format!(": {}", named.join(", ")),
        };
        let count = match self.indexes.len() {
            1 => "1 index grows".into(),
            count => format!("{count} indexes grow"),
        };
        growth(
            TOPIC,
            format!("{count} {}{which}", by(grown, before)),
            (grown, before),
            "Look for unused indexes, and drop them first; REINDEX CONCURRENTLY makes them small again.",
        )
    }

    fn wal(&self) -> Finding {
        let forecast = &self.forecast;
        let compressed = match self.server.compresses() && forecast.image_bytes > 0.0 {
            true => ", on the assumption that \"wal_compression\" halves them",
            false => "",
        };
        let images = match forecast.image_bytes > 0.0 {
            true => format!(
                ", of which {} are full page images{compressed}",
                size(forecast.image_bytes)
            ),
            false => String::new(),
        };
        Finding::note("WAL", format!("{}{images}", size(forecast.wal_bytes)))
    }

    fn batches(&self, proven: &Proven) -> Finding {
        Finding::note(
            "batches",
            format!(
                "about {:.0}, each of at most {} rows and {} ms",
                self.forecast.batches,
                proven.batch_size,
                settings::max_batch_time().as_millis()
            ),
        )
    }

    fn time(&self) -> Finding {
        let time = Duration::try_from_secs_f64(self.forecast.seconds).unwrap_or(Duration::MAX);
        let how = match self.known_by {
            Some(rows) => format!("as fast as this server has filled {rows} rows before"),
            None => "a guess: this server has filled no table of that kind before".into(),
        };
        Finding::note(
            "time",
            match time < Duration::from_secs(1) {
                true => format!("less than a second, {how}"),
                false => format!("about {} with one process, {how}", seconds(time)),
            },
        )
    }

    fn disk(&self) -> Finding {
        let forecast = &self.forecast;
        let wal = forecast.wal_bytes.min(self.server.max_wal_size);
        let kept = match forecast.wal_bytes > wal {
            true => format!(
                ", or {} if a replication slot or the archiver keeps it all",
                size(forecast.wal_bytes)
            ),
            false => String::new(),
        };
        Finding::of(
            Verdict::Note,
            "disk space",
            format!(
                "{} for the table, {} for its indexes; for WAL {}{kept}",
                size(forecast.heap_bytes),
                size(forecast.index_bytes.iter().sum()),
                size(wal)
            ),
            "SQL does not show how much is free: look with df, on the server and on its standbys.",
        )
    }
}

/// A finding on what grows by `grown` bytes of so many; advice is given if that is much.
fn growth(
    topic: &'static str,
    finding: String,
    (grown, before): (f64, f64),
    advice: &'static str,
) -> Finding {
    match grown > (MUCH * before).max(LITTLE) {
        true => Finding::of(Verdict::Warning, topic, finding, advice),
        false => Finding::ok(topic, finding),
    }
}

fn by(grown: f64, before: f64) -> String {
    let percent = 100.0 * grown / before.max(1.0);
    format!("by {} of {} ({percent:+.1} %)", size(grown), size(before))
}
