//! What a run says without ending: every NOTICE and WARNING, in PostgreSQL's message style.

use std::time::Duration;

use planner::phase::Finding;

use crate::pg::{message, spi, usage};
use crate::settings;

pub mod amounts;
mod summary;
mod wait;

pub use amounts::counted;
use amounts::seconds;
pub use summary::{Sizes, Summary, say_summary};
pub use wait::{Reason, Wait};

/// Sends a NOTICE without DETAIL and HINT.
pub fn say(line: String) {
    message::notice(line, None, None);
}

/// How far rows are filled: the share of the blocks from 0 to 1, rows, rows per second.
pub fn filling(table: &str, share: f64, rows: u64, rate: f64, left: Option<Duration>) -> String {
    format!(
        "table \"{table}\": {:.1}% done, {} filled, {rate:.0} rows/s, {}",
        100.0 * share,
        counted(rows, "row"),
        time_left(left)
    )
}

/// How far a table is verified: the share of its blocks from 0 to 1, and the rows filled so far.
pub fn verifying(table: &str, share: f64, rows: u64, left: Option<Duration>) -> String {
    format!(
        "table \"{table}\": verifying, {:.1}% done, {} filled, {}",
        100.0 * share,
        counted(rows, "row"),
        time_left(left)
    )
}

fn time_left(left: Option<Duration>) -> String {
    match left {
        Some(left) => format!("about {} left", seconds(left)),
        None => "time left not known yet".into(),
    }
}

/// Rows that lack the column have the value now. `quoted` is the table as SQL names it; `tables` were changed, each of which
/// was locked for `time` at most.
pub fn say_instant(table: &str, column: &str, quoted: &str, tables: u64, time: Duration) {
    let locked = match tables {
        1 => "The table was locked for at most".into(),
        _ => format!("Each of {tables} tables was locked for at most"),
    };
    message::notice(
        format!("rows of table \"{table}\" that lacked column \"{column}\" have the value now"),
        Some(&format!(
            "They were written before the column was added, and need not be written again.  {locked} {:.1} ms.",
            1000.0 * time.as_secs_f64()
        )),
        Some(&format!(
            "The planner has no statistics of the column.  To give it some, run ANALYZE {quoted} ({});",
            spi::quote(column)
        )),
    );
}

/// Rows that lack the column were not NULL, but had another value: `array` has it as its only element.
pub fn say_had_value(table: &str, column: &str, array: &str) {
    message::notice(
        format!("rows of table \"{table}\" that lack column \"{column}\" have a value already"),
        Some(&format!(
            "They are read as {array}, because of the default that the column was added with, or an earlier call.  Only rows that are null are filled."
        )),
        None,
    );
}

/// The column is NOT NULL already, so there is nothing to do.
pub fn say_already_not_null(table: &str, column: &str) {
    say(format!(
        "column \"{column}\" of table \"{table}\" is already NOT NULL, skipping"
    ));
}

/// The column has just been made NOT NULL.
pub fn say_now_not_null(table: &str, column: &str) {
    say(format!(
        "column \"{column}\" of table \"{table}\" is now NOT NULL"
    ));
}

/// The column exists already, with this type. `default`: the CALL gave a default, which was not used.
pub fn say_column_exists(table: &str, column: &str, type_name: &str, default: bool) {
    message::notice(
        format!("column \"{column}\" of table \"{table}\" already exists, skipping"),
        Some(&format!(
            "It is of type {type_name}.  Its default and the existing rows were left unchanged."
        )),
        default.then_some("To fill existing rows, call safe_backfill."),
    );
}

/// The column has no default, so new rows will be NULL. `quoted` is the table as SQL names it, and `value` the constant that
/// rows are filled with, if it is one: both make the HINT a statement that can be run.
pub fn say_no_default(table: &str, column: &str, quoted: &str, value: Option<&str>) {
    let default = value.map_or_else(|| "...".into(), spi::quote_literal);
    message::notice(
        format!("column \"{column}\" of table \"{table}\" has no default"),
        Some("Rows inserted without a value for it will be null."),
        Some(&format!(
            "Set one first, for new rows only: SET lock_timeout = '1s'; ALTER TABLE {quoted} ALTER COLUMN {} SET DEFAULT {default};",
            spi::quote(column)
        )),
    );
}

/// An earlier job, which did not end, has filled rows with another value, and these stay as they are.
pub fn say_other_value(table: &str, column: &str, job: i64, rows: u64) {
    message::notice(
        format!(
            "job {job} has filled {} of table \"{table}\" with another value",
            counted(rows, "row")
        ),
        Some("They are kept: only rows that are null are filled."),
        Some(&format!(
            "If that value was wrong, set column \"{column}\" of these rows to null, some at a time, or drop the column and add it again; then call again."
        )),
    );
}

/// Another run is working on a partition, as this error says.
pub fn say_waiting_for_run(error: &str, detail: Option<&str>) {
    message::notice(format!("{error}; waiting for it to end"), detail, None);
}

/// A run waits.
pub fn say_waiting(wait: &Wait) {
    // Of that, `say_waiting_for_run` has told.
    if wait.reason == Reason::Run {
        return;
    }
    let hint = match wait.reason {
        Reason::Setting(setting) => Some(format!("See \"safe_backfill.{setting}\".")),
        Reason::RowLocks => Some("See \"safe_backfill.row_lock_timeout\".".into()),
        _ => None,
    };
    let message = match wait.reason {
        Reason::Confirmation => format!("waiting for {wait}"),
        _ => format!("the backfill waits for {wait}"),
    };
    // It asks for those locks from time to time.
    let asks = matches!(wait.reason, Reason::RowLocks | Reason::TableLock);
    let detail = (!asks).then_some("No row and no table is locked meanwhile.");
    message::notice(message, detail, hint.as_deref());
}

/// A run should wait, but `archive_lag_action` has it only warn.
pub fn warn_of_backlog(wait: &Wait) {
    message::warning(
        format!("the backfill goes on without waiting for {wait}"),
        "It continues to write WAL.",
        Some("See \"safe_backfill.archive_lag_action\"."),
    );
}

/// What a background worker does, for `pg_stat_activity`.
pub fn worker_activity(job: i64, table: &str, column: &str) -> String {
    format!("job {job}: filling column \"{column}\" of table \"{table}\"")
}

/// A background worker begins.
pub fn say_worker_begins(table: &str, column: &str) {
    say(format!(
        "filling column \"{column}\" of table \"{table}\" in the background"
    ));
}

const NO_SLOT: &str = "All background worker slots are in use.";

/// No worker could be started for a job that a restart of the server has interrupted.
pub fn warn_no_slot_to_resume(job: i64) {
    message::warning(
        format!("could not resume job {job}"),
        NO_SLOT,
        Some(&format!(
            "Increase \"max_worker_processes\", then run SELECT safe_backfill_resume({job});"
        )),
    );
}

/// No worker could be started to look for interrupted jobs in a database.
pub fn warn_no_slot_to_look(database: u32) {
    message::warning(
        format!("could not look for interrupted jobs in database with OID {database}"),
        NO_SLOT,
        Some(
            "Increase \"max_worker_processes\", then run safe_backfill_resume for each interrupted job.",
        ),
    );
}

/// The run was paused from another session.
pub fn say_paused(table: &str, job: i64) {
    message::notice(
        format!("paused backfill of table \"{table}\""),
        None,
        Some(&format!(
            "To continue, run SELECT safe_backfill_resume({job});"
        )),
    );
}

/// The table was rewritten into another file.
pub fn say_rewritten(table: &str) {
    say(format!(
        "table \"{table}\" was rewritten since the last batch; starting over at its first block"
    ));
}

/// Dead row versions cannot be removed because `holder` may still read them.
pub fn say_horizon_holder(table: &str, holder: &str, hint: &str) {
    message::notice(
        format!("could not reuse dead row versions of table \"{table}\""),
        Some(&format!(
            "They are kept for {holder}.  The table will grow."
        )),
        Some(hint),
    );
}

/// What to do about a holder of the xmin horizon, by its kind and name.
pub fn hint_on_holder(kind: &str, name: Option<&str>) -> String {
    let name = spi::quote_literal(name.unwrap_or_default());
    match kind {
        "standby" => "If no query runs there for long, set a shorter \"wal_receiver_status_interval\" on the standby, or turn off \"hot_standby_feedback\" there while the backfill runs."
            .into(),
        "client" => "Wait until it has finished, for instance a base backup or the creation of a slot.".into(),
        "prepared transaction" => {
            format!("End it: COMMIT PREPARED {name}; or ROLLBACK PREPARED {name};")
        }
        "slot" => format!(
            "Start its consumer.  If there is none any more, run SELECT pg_drop_replication_slot({name});"
        ),
        "active slot" => format!(
            "Have its consumer confirm what it has received.  If it is not needed, drop the slot {name}."
        ),
        "setting" => "Set it to 0 while the backfill runs.".into(),
        _ => "End that transaction.  Otherwise the backfill continues, but its updates will not be HOT."
            .into(),
    }
}

/// A lock was not available in time. `holders` says who holds it, if that is known.
pub fn say_retry(table: &str, retry: u32, limit: u32, pause: Duration, holders: Option<String>) {
    message::notice(
        format!(
            "could not lock table \"{table}\" within {} ms, retry {retry} of {limit} in {} ms",
            settings::lock_timeout().as_millis(),
            pause.as_millis()
        ),
        holders
            .map(|holders| format!("Locks are held by {holders}."))
            .as_deref(),
        None,
    );
}

/// The job tables were made unlogged, since this publication would have published them.
pub fn say_unlogged(publication: &str) {
    message::notice(
        format!(
            "tables \"safe_backfill_job\", \"safe_backfill_part\" and \"safe_backfill_step\" are unlogged now, because publication \"{publication}\" would publish them"
        ),
        Some("If the server crashes, the progress of jobs is lost, but no row that was filled."),
        None,
    );
}

/// A long validation begins. It reads `bytes`; `speed` is in bytes per second, if known.
pub fn say_validating(table: &str, column: &str, bytes: u64, speed: Option<f64>) {
    let about = speed.map_or_else(String::new, |speed| {
        format!(" in about {:.0} s", (bytes as f64 / speed).ceil())
    });
    message::notice(
        format!("validating column \"{column}\" of table \"{table}\""),
        Some(&format!(
            "It reads {}{about}.  Others can read and write the table meanwhile.",
            usage::size_pretty(bytes)
        )),
        None,
    );
}

/// A long validation has ended.
pub fn say_validated(table: &str, column: &str, time: Duration) {
    say(format!(
        "validated column \"{column}\" of table \"{table}\" in {:.1} s",
        time.as_secs_f64()
    ));
}

/// Says that what is being cancelled is only the wait that follows a commit, as PostgreSQL does: the error alone could be
/// taken for a rollback.
pub fn warn_of_unconfirmed_commit() {
    message::warning(
        "canceling the wait for synchronous replication".into(),
        "The transaction has already committed locally, but might not have been replicated to the standby.",
        None,
    );
}

/// Every round over a tree of tables found rows to fill; the last one filled `filled`.
pub fn warn_of_moving_rows(table: &str, column: &str, filled: u64) {
    message::warning(
        format!("rows of table \"{table}\" kept becoming null"),
        &format!(
            "The last verification filled {} of column \"{column}\".",
            counted(filled, "row")
        ),
        Some(GIVE_A_VALUE),
    );
}

const GIVE_A_VALUE: &str =
    "Set a default for the column, or have the application give a value, then call again.";

/// Rows are still NULL at the end of a run.
pub fn warn_of_leftover(table: &str, column: &str, finding: Finding) {
    let (detail, hint) = match finding {
        Finding::Verified { .. } => (
            "The expression yields null.",
            "Fix the expression, or fill these rows with a constant by calling safe_backfill.",
        ),
        Finding::Refused { .. } => (
            "A trigger or the expression sets the column to null.",
            "Fix the trigger or the expression, then call again.",
        ),
        Finding::KeptComing { .. } => (
            "Other transactions kept writing rows without a value.",
            GIVE_A_VALUE,
        ),
    };
    let rows = finding.null();
    let are = if rows == 1 { "is" } else { "are" };
    message::warning(
        format!(
            "{} of table \"{table}\" {are} still null in column \"{column}\"",
            counted(rows, "row")
        ),
        detail,
        Some(hint),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_percent_rate_and_time_left() {
        let left = Some(Duration::from_secs(30));
        assert_eq!(
            filling("large_user", 0.25, 5000, 500.0, left),
            "table \"large_user\": 25.0% done, 5000 rows filled, 500 rows/s, about 30.0 s left"
        );
        assert_eq!(
            verifying("large_user", 0.4, 1, None),
            "table \"large_user\": verifying, 40.0% done, 1 row filled, time left not known yet"
        );
    }
}
