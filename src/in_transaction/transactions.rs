//! Subtransactions, locks and the refusal to run where nothing can be committed.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::lock::ColumnLock;
    use crate::pg::transaction::within_statement;
    use crate::pg::tx::Attempt;

    #[pg_test]
    fn an_attempt_keeps_what_went_through() {
        Spi::run("CREATE TABLE t (i int)").expect("the table");
        let outcome =
            within_statement(|tx| tx.attempt(|| Spi::run("INSERT INTO t VALUES (1)").is_ok()));
        assert_eq!(outcome, Attempt::Done(true));
        assert_eq!(Spi::get_one::<i64>("SELECT count(*) FROM t"), Ok(Some(1)));
    }

    #[pg_test]
    fn an_attempt_undoes_what_met_a_lock() {
        Spi::run("CREATE TABLE t (i int)").expect("the table");
        let outcome = within_statement(|tx| {
            tx.attempt(|| {
                Spi::run("INSERT INTO t VALUES (1)").expect("the row");
                Spi::run("DO $$ BEGIN RAISE lock_not_available; END $$").expect("never");
            })
        });
        assert_eq!(outcome, Attempt::Locked("lock_not_available".into()));
        assert_eq!(Spi::get_one::<i64>("SELECT count(*) FROM t"), Ok(Some(0)));
    }

    #[pg_test(error = "division by zero")]
    fn other_errors_pass_through_an_attempt() {
        within_statement(|tx| tx.attempt(|| Spi::run("SELECT 1 / 0").expect("never")));
    }

    #[pg_test]
    fn a_column_is_locked_once() {
        let table = pg_sys::Oid::from(4_000_000_000);
        within_statement(|tx| {
            let first = ColumnLock::try_acquire(tx, table, 1);
            assert!(first.is_some());
            assert!(ColumnLock::try_acquire(tx, table, 1).is_none());
            assert!(ColumnLock::try_acquire(tx, table, 2).is_some());
            drop(first);
            assert!(ColumnLock::try_acquire(tx, table, 1).is_some());
        });
    }

    #[pg_test(error = "safe_backfill cannot run inside a transaction block")]
    fn a_transaction_block_is_refused() {
        Spi::run("CREATE TABLE t (i int, c text)").expect("the table");
        Spi::run("CALL safe_backfill('t', 'c', 'x')").expect("never");
    }

    #[pg_test]
    fn settings_have_units_and_limits() {
        Spi::run("LOAD 'pg_safe_backfill'").expect("the library");
        let sql = "SELECT string_agg(format('%s %s %s..%s', name, unit, min_val, max_val), ', ' ORDER BY name)
                   FROM pg_settings WHERE name LIKE 'safe_backfill.%' AND vartype = 'integer'";
        let expected = "safe_backfill.lock_retry_limit  0..100000, safe_backfill.lock_timeout ms 2..600000, \
                        safe_backfill.max_archive_lag MB 0..2147483647, \
                        safe_backfill.max_batch_time ms 1..600000, \
                        safe_backfill.max_pg_wal_size MB 0..2147483647, \
                        safe_backfill.max_replica_lag ms 0..86400000, \
                        safe_backfill.max_slot_lag MB 0..2147483647, \
                        safe_backfill.max_wal_rate kB 0..2147483647, \
                        safe_backfill.pause ms 0..86400000, \
                        safe_backfill.progress_interval ms 0..86400000, \
                        safe_backfill.row_lock_timeout ms 1..60000";
        assert_eq!(Spi::get_one::<String>(sql), Ok(Some(expected.to_owned())));
    }
}
