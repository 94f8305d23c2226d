//! What is written besides the rows, when nobody else is there: how much the indexes grow.

use anyhow::{Result, ensure};
use client_tests::Database;

/// How much the indexes of any table may grow on which rows can stay on their pages.
const MOST: f64 = 1.05;

/// A table, full and vacuumed, its column empty.
struct Shape {
    /// The columns before the one to be filled.
    columns: &'static str,
    /// Their values, for `i` from 1 on.
    values: &'static str,
    rows: i64,
    /// Besides the primary key, before the rows come.
    indexes: &'static str,
    column_type: &'static str,
    value: &'static str,
}

const PLAIN: Shape = Shape {
    columns: "id int PRIMARY KEY, filler text",
    values: "i, repeat('f', 66)",
    rows: 100_000,
    indexes: "",
    column_type: "int",
    value: "7",
};

impl Shape {
    /// Fills the table, whose indexes must not grow by more than `MOST`.
    fn keeps_its_indexes(&self) -> Result<()> {
        let db = Database::new()?;
        db.execute(&format!(
            "CREATE TABLE t ({}) WITH (autovacuum_enabled = off);
             {};
             INSERT INTO t SELECT {} FROM generate_series(1, {}) i;
             ALTER TABLE t ADD c {}",
            self.columns, self.indexes, self.values, self.rows, self.column_type
        ))?;
        db.execute("VACUUM ANALYZE t")?;
        let before: i64 = db.value("SELECT pg_indexes_size('t')")?;
        db.call(&format!("CALL safe_backfill('t', 'c', '{}')", self.value))?
            .succeeded()?;
        assert_eq!(
            db.value::<i64>(&format!(
                "SELECT count(*) FROM t WHERE c::text = '{}'",
                self.value
            ))?,
            self.rows
        );
        let after: i64 = db.value("SELECT pg_indexes_size('t')")?;
        let growth = after as f64 / before as f64;
        ensure!(
            growth <= MOST,
            "the indexes grew by a factor of {growth:.2}"
        );
        Ok(())
    }
}

#[test]
fn a_primary_key_hardly_grows() -> Result<()> {
    PLAIN.keeps_its_indexes()
}

#[test]
fn two_indexes_hardly_grow() -> Result<()> {
    Shape {
        columns: "id int PRIMARY KEY, other int, filler text",
        values: "i, i, repeat('f', 62)",
        indexes: "CREATE INDEX ON t (other)",
        ..PLAIN
    }
    .keeps_its_indexes()
}

#[test]
fn the_indexes_of_accounts_hardly_grow() -> Result<()> {
    Shape {
        columns: "aid int PRIMARY KEY, bid int, abalance int, filler char(84)",
        values: "i, (i - 1) / 1000 + 1, 0, ''",
        indexes: "CREATE INDEX ON t (bid)",
        ..PLAIN
    }
    .keeps_its_indexes()
}

#[test]
fn the_primary_key_of_long_rows_hardly_grows() -> Result<()> {
    Shape {
        values: "i, repeat('f', 960)",
        rows: 60_000,
        indexes: "ALTER TABLE t ALTER filler SET STORAGE PLAIN",
        ..PLAIN
    }
    .keeps_its_indexes()
}

/// The same keys each time: how full the pages of the index are to begin with is a matter of chance.
#[test]
fn an_index_of_random_keys_hardly_grows() -> Result<()> {
    Shape {
        columns: "id int PRIMARY KEY, random uuid, filler text",
        values: "i, md5(i::text)::uuid, repeat('f', 50)",
        indexes: "CREATE INDEX ON t (random)",
        ..PLAIN
    }
    .keeps_its_indexes()
}

/// The rows grow by half: a third of them must move.
#[test]
fn a_primary_key_hardly_grows_though_the_rows_do() -> Result<()> {
    Shape {
        column_type: "text",
        value: "a long value: 50 bytes of text, give or take a few",
        ..PLAIN
    }
    .keeps_its_indexes()
}

/// HOT is impossible then, though no index has the column. The first window tells: in those after it, rows go wherever
/// PostgreSQL puts them.
#[test]
fn pages_are_not_recycled_where_a_trigger_rules_hot_updates_out() -> Result<()> {
    const WINDOW: i32 = 2048;
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, updated_at timestamptz DEFAULT now(), filler text)
         WITH (autovacuum_enabled = off);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         CREATE INDEX ON t (updated_at);
         INSERT INTO t SELECT i, now(), repeat('f', 400) FROM generate_series(1, 60000) i;
         ALTER TABLE t ADD c int;
         CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             NEW.updated_at := clock_timestamp();
             RETURN NEW;
         END $$;
         CREATE TRIGGER stamp BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION stamp();
         CREATE TABLE place AS SELECT id, (ctid::text::point)[0]::int AS block FROM t",
    )?;
    db.call("CALL safe_backfill('t', 'c', 7)")?.succeeded()?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 60_000);
    let stayed: f64 = db.value(&format!(
        "SELECT avg((block = (t.ctid::text::point)[0]::int)::int)::float8
         FROM t JOIN place USING (id) WHERE block >= {WINDOW}"
    ))?;
    ensure!(
        stayed < 0.2,
        "{:.0} % of the rows stayed on their pages",
        100.0 * stayed
    );
    Ok(())
}
