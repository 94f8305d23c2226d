//! `safe_backfill_plan`: what it finds, that it is right, and that it only reads.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, SUPERUSER, Server, failure};
use postgres::{Client, Row};

use crate::horizon::snapshot_of;

/// 20,000 rows, a tenth of which are filled.
const TABLE: &str = "
    CREATE TABLE t (id int PRIMARY KEY, filler text) WITH (autovacuum_enabled = off);
    INSERT INTO t SELECT i, repeat('x', 70) FROM generate_series(1, 18000) i;
    ALTER TABLE t ADD c int;
    INSERT INTO t SELECT i, repeat('x', 70), 1 FROM generate_series(18001, 20000) i";

/// The rows of a plan.
struct Plan(Vec<Row>);

impl Plan {
    fn of(client: &mut Client, arguments: &str) -> Result<Self> {
        let query = format!("SELECT * FROM safe_backfill_plan({arguments})");
        Ok(Plan(client.query(&query, &[])?))
    }

    /// Verdicts, findings and advice of a topic.
    fn about(&self, topic: &str) -> Vec<(String, String, String)> {
        let rows = self.0.iter().filter(|row| row.get::<_, String>(0) == topic);
        let of = |row: &Row| {
            let advice: Option<String> = row.get(3);
            (row.get(1), row.get(2), advice.unwrap_or_default())
        };
        rows.map(of).collect()
    }

    /// The only finding of a topic, which has this verdict.
    fn finding(&self, topic: &str, verdict: &str) -> Result<String> {
        let about = self.about(topic);
        match about.as_slice() {
            [(found, finding, _)] if found == verdict => Ok(finding.clone()),
            _ => anyhow::bail!(
                "one finding about {topic}, {verdict}, expected, not {about:?} of {self:?}"
            ),
        }
    }

    /// Some finding of a topic that has this verdict and says this.
    fn says(&self, topic: &str, verdict: &str, text: &str) -> Result<()> {
        let about = self.about(topic);
        let found = about
            .iter()
            .any(|(found, finding, _)| found == verdict && finding.contains(text));
        ensure!(
            found,
            "no {verdict} about {topic} that says {text:?} in {self:?}"
        );
        Ok(())
    }
}

impl std::fmt::Debug for Plan {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = |row: &Row| -> [String; 3] { [row.get(0), row.get(1), row.get(2)] };
        f.debug_list().entries(self.0.iter().map(text)).finish()
    }
}

fn plan(db: &Database, arguments: &str) -> Result<Plan> {
    Plan::of(&mut db.connect()?, arguments)
}

/// The first number of a text.
fn number(text: &str) -> Result<f64> {
    let words = text.split(|c: char| !c.is_ascii_digit() && c != '.');
    let mut numbers = words.filter_map(|word| word.parse().ok());
    numbers
        .next()
        .with_context(|| format!("no number in {text:?}"))
}

#[test]
fn rows_are_counted_and_so_are_those_without_the_column() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    let plan = plan(&db, "'t', 'c', 1")?;
    let rows = plan.finding("rows to fill", "note")?;
    ensure!(rows.starts_with("18000 rows of 20000 (all "), "{rows}");
    plan.says("instant", "note", "18000 rows lack the column physically")?;
    db.execute("UPDATE t SET filler = filler WHERE id <= 1000")?;
    let plan = self::plan(&db, "'t', 'c', 1")?;
    plan.says("rows to fill", "note", "18000 rows of 20000")?;
    plan.says("instant", "note", "17000 rows")
}

#[test]
fn it_says_whether_rows_need_not_be_written() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    db.execute("UPDATE t SET filler = filler WHERE id <= 1000")?;
    let advice = |plan: &Plan| plan.about("instant").pop().unwrap_or_default().2;
    let plan = self::plan(&db, "'t', 'c', 1")?;
    plan.says("instant", "note", "need not be written")?;
    // What it advises can be run, and does what it says.
    let statement = advice(&plan);
    let statement = statement
        .split_once(": ")
        .context("a statement")?
        .1
        .to_owned();
    db.execute("CREATE INDEX the_index ON t (c)")?;
    let error = db.call(&statement)?.failed_with("55000")?;
    let plan = self::plan(&db, "'t', 'c', 1")?;
    plan.says("instant", "note", "would be refused: Index \"the_index\"")?;
    ensure!(
        error
            .detail
            .as_deref()
            .unwrap_or_default()
            .starts_with("Index \"the_index\"")
            && error.hint == Some(advice(&plan)),
        "{error}, {plan:?}"
    );
    let plan = self::plan(&db, "'t', 'c'")?;
    plan.says("instant", "note", "would be refused: Index \"the_index\"")?;
    let plan = self::plan(&db, "'t', 'c', expression => 'id'")?;
    plan.says("instant", "note", "no expression")?;
    db.execute("DROP INDEX the_index")?;
    db.call(&statement)?.succeeded()?;
    let filled: i64 = db.value("SELECT rows_filled FROM safe_backfill_part")?;
    ensure!(filled == 1000, "{filled} rows were filled by batches");
    Ok(())
}

#[test]
fn what_is_foreseen_then_happens() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    let plan = plan(&db, "'t', 'c', 1")?;
    let hot = number(&plan.finding("HOT updates", "ok")?)?;
    let batches = number(&plan.finding("batches", "note")?)?;
    db.call("CALL safe_backfill('t', 'c', 1)")?.succeeded()?;
    let fact = db.connect()?.query_one(
        "SELECT 100.0::float8 * rows_hot / rows_filled, batches::float8, rows_filled FROM safe_backfill_part",
        &[],
    )?;
    assert_eq!(fact.get::<_, i64>(2), 18_000);
    let (is_hot, took): (f64, f64) = (fact.get(0), fact.get(1));
    ensure!(
        (hot - is_hot).abs() <= 5.0,
        "{hot} % HOT, and then {is_hot}"
    );
    ensure!(
        batches < 5.0 * took && took < 5.0 * batches,
        "{batches} batches, and then {took}"
    );
    // Now this server is known.
    let again = self::plan(&db, "'t', 'c', 1")?;
    again.says("rows to fill", "ok", "no backfill is needed")?;
    db.execute("CREATE TABLE u AS SELECT id, NULL::int AS c FROM t")?;
    let known = self::plan(&db, "'u', 'c', 1")?;
    known.says(
        "time",
        "note",
        "as fast as this server has filled 18000 rows before",
    )
}

#[test]
fn a_lock_of_somebody_else_is_no_refusal() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    let mut holder = db.connect()?;
    let pid: i32 = holder.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    holder.batch_execute("BEGIN; LOCK TABLE t IN SHARE ROW EXCLUSIVE MODE")?;
    let mut client = db.connect()?;
    client.batch_execute("SET safe_backfill.lock_timeout = '100ms'")?;
    let plan = Plan::of(&mut client, "'t', 'c', 1")?;
    plan.says(
        "safe_backfill",
        "warning",
        &format!("locked by process {pid}"),
    )?;
    plan.says("rows to fill", "note", "18000 rows of 20000")?;
    holder.batch_execute("ROLLBACK")?;
    let plan = Plan::of(&mut client, "'t', 'c', 1")?;
    plan.says("safe_backfill", "ok", "would not be refused")
}

#[test]
fn nothing_is_written_and_no_lock_is_kept() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    let mut client = db.connect()?;
    let mut transaction = client.build_transaction().read_only(true).start()?;
    let found = transaction.query(
        "SELECT * FROM safe_backfill_plan('t', 'c', 1, filter => 'id > 10')",
        &[],
    )?;
    Plan(found).says("safe_backfill", "warning", "read-only transaction")?;
    let row = transaction.query_one(
        "SELECT pg_current_xact_id_if_assigned() IS NULL,
                count(*) FILTER (WHERE relation = 't'::regclass AND mode <> 'AccessShareLock')
         FROM pg_locks WHERE pid = pg_backend_pid()",
        &[],
    )?;
    assert_eq!((row.get(0), row.get(1)), (true, 0i64));
    transaction.rollback()?;
    let mut transaction = client.transaction()?;
    let found = transaction.query("SELECT * FROM safe_backfill_plan('t', 'c', 1)", &[])?;
    Plan(found).says("safe_backfill", "ok", "would not be refused")?;
    let locks: i64 = transaction
        .query_one("SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 't_pkey'::regclass", &[])?
        .get(0);
    assert_eq!(locks, 0);
    transaction.execute("UPDATE t SET c = 5 WHERE id = 1", &[])?;
    transaction.commit()?;
    assert_eq!(db.value::<i64>("SELECT count(c) FROM t")?, 2001);
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        0
    );
    Ok(())
}

#[test]
fn a_large_table_takes_no_longer() -> Result<()> {
    const MOST: i64 = 2048;
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, filler text) WITH (autovacuum_enabled = off);
         ALTER TABLE t ALTER filler SET STORAGE plain;
         INSERT INTO t SELECT i, repeat('x', 4000) FROM generate_series(1, 20000) i;
         ALTER TABLE t ADD c int",
    )?;
    db.execute("VACUUM t")?;
    let read = "SELECT heap_blks_read + heap_blks_hit, idx_blks_read + idx_blks_hit FROM pg_statio_user_tables WHERE relname = 't'";
    let settled = || -> Result<(i64, i64)> {
        std::thread::sleep(Duration::from_millis(1200));
        let row = db.connect()?.query_one(read, &[])?;
        Ok((row.get(0), row.get(1)))
    };
    let before = settled()?;
    let began = Instant::now();
    let rows = plan(&db, "'t', 'c', 1")?.finding("rows to fill", "note")?;
    ensure!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    let after = settled()?;
    ensure!(rows.starts_with("about 20000 rows"), "{rows}");
    ensure!(rows.contains(&format!("{MOST} of 10000 blocks")), "{rows}");
    let (heap, index) = (after.0 - before.0, after.1 - before.1);
    // And a few of the free space map.
    ensure!(
        (MOST..=2 * MOST + 50).contains(&heap) && index <= MOST,
        "{heap} and {index} blocks read"
    );
    Ok(())
}

#[test]
fn a_standby_answers_too() -> Result<()> {
    let primary = Database::alone(Options::default())?;
    primary.execute(TABLE)?;
    let standby = Server::standby_of(primary.server(), Options::default())?;
    standby.catch_up_with(primary.server())?;
    let mut client = standby.connect_as(SUPERUSER, primary.name())?;
    let plan = Plan::of(&mut client, "'t', 'c', 1, filter => 'id > 9000'")?;
    plan.says("safe_backfill", "blocker", "on a hot standby")?;
    plan.says("rows to fill", "note", "18000 rows of 20000")?;
    plan.says("rows to fill", "note", "on a standby")?;
    plan.says("xmin horizon", "note", "ask on the primary")
}

#[test]
fn who_may_not_read_learns_nothing() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    let role = format!("{}_reader", db.name());
    db.execute(&format!("CREATE ROLE {role} LOGIN"))?;
    let mut client = db.connect_as(&role)?;
    let denied = Plan::of(&mut client, "'t', 'c', 1")?;
    assert_eq!(denied.0.len(), 1, "{denied:?}");
    denied.says("safe_backfill", "blocker", "permission denied")?;
    ensure!(
        denied.about("safe_backfill")[0]
            .1
            .contains("SELECT on the table"),
        "{denied:?}"
    );
    db.execute(&format!("GRANT SELECT ON t TO {role}"))?;
    assert_eq!(Plan::of(&mut client, "'t', 'c', 1")?.0.len(), 1);
    db.execute(&format!("GRANT UPDATE (c) ON t TO {role}"))?;
    let allowed = Plan::of(&mut client, "'t', 'c', 1")?;
    allowed.says("rows to fill", "note", "18000 rows")?;
    db.execute("CREATE POLICY p ON t USING (id > 17990); ALTER TABLE t ENABLE ROW LEVEL SECURITY")?;
    let hidden = Plan::of(&mut client, "'t', 'c', 1")?;
    assert_eq!(hidden.0.len(), 1, "{hidden:?}");
    hidden.says("safe_backfill", "blocker", "row-level security")?;
    // It does not hide rows from the owner.
    plan(&db, "'t', 'c', 1")?.says("policies", "ok", "p exist")
}

#[test]
fn what_would_be_refused_is_a_blocker_with_the_same_words() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    db.execute(
        "CREATE VIEW v AS SELECT * FROM t;
         CREATE TABLE g (id int, c int GENERATED ALWAYS AS (id + 1) STORED);
         CREATE TABLE k (c int) PARTITION BY LIST (c);
         CREATE TABLE n (c int CHECK (c > 0));
         CREATE TABLE r (c int); CREATE RULE r AS ON UPDATE TO r DO INSTEAD NOTHING",
    )?;
    for arguments in [
        "'v', 'c', 1",
        "'t', 'missing', 1",
        "'t', 'ctid', '1'",
        "'g', 'c', 1",
        "'k', 'c', 1",
        "'n', 'c', -1",
        "'r', 'c', 1",
        "'t', 'c', 'not a number'",
        "'t', 'c', point(1, 1)",
        "'t', 'c', 1, 0",
        "'t', 'c', 1, filter => 'missing = 1'",
        "'t', 'c', 1, filter => 'true; DROP TABLE t'",
        "'pg_class', 'relname', 'x'",
    ] {
        let call = format!("CALL safe_backfill({arguments})");
        let error = db.call(&call)?.failed()?;
        let error = error.as_db_error().context("of the server")?.clone();
        let plan = plan(&db, arguments)?;
        plan.says("safe_backfill", "blocker", error.message())?;
        plan.says(
            "safe_backfill",
            "blocker",
            error.detail().unwrap_or_default(),
        )?;
        let advice = &plan.about("safe_backfill")[0].2;
        assert_eq!(advice, error.hint().unwrap_or_default(), "{arguments}");
    }
    Ok(())
}

#[test]
fn arguments_that_make_no_sense_are_errors() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    for (arguments, code) in [
        ("NULL, 'c'", "22004"),
        ("'t', NULL", "22004"),
        ("'t', 'c', batch_size => NULL", "22004"),
        ("'t', 'c', '1', expression => 'id'", "22023"),
    ] {
        let Err(error) = db.connect()?.query(
            &format!("SELECT * FROM safe_backfill_plan({arguments})"),
            &[],
        ) else {
            anyhow::bail!("{arguments} succeeded");
        };
        failure(error, code)?;
    }
    Ok(())
}

#[test]
fn a_run_that_works_on_the_column_is_a_blocker() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    db.slow_down("t")?;
    let run = db.start_after(
        "SET test.pause = 0.01",
        "CALL safe_backfill('t', 'c', 1, 20)",
    )?;
    run.wait_for_rows("t", 20)?;
    plan(&db, "'t', 'c', 1")?.says("safe_backfill", "blocker", "is working on column")?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    Ok(())
}

#[test]
fn filters_and_expressions_are_tried_on_what_was_read() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    let rows = |arguments: &str| plan(&db, arguments)?.finding("rows to fill", "note");
    ensure!(rows("'t', 'c', 1, filter => 'id % 2 = 0'")?.starts_with("9000 rows"));
    ensure!(rows("'t', 'c', filter => 'id <= 100'")?.starts_with("100 rows"));
    ensure!(rows("'t', 'c', expression => 'nullif(id % 3, 0)'")?.starts_with("12000 rows"));
    // One that is volatile cannot be tried without doing what it does.
    db.execute("CREATE SEQUENCE s")?;
    ensure!(rows("'t', 'c', expression => 'nextval(''s'')'")?.starts_with("18000 rows"));
    assert!(!db.value::<bool>("SELECT is_called FROM s")?);
    Ok(())
}

#[test]
fn a_row_at_which_the_expression_fails_is_a_blocker() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    for arguments in [
        "'t', 'c', expression => '1 / (id - 77)'",
        "'t', 'c', 1, filter => '1 / (id - 77) > 5'",
    ] {
        let plan = plan(&db, arguments)?;
        plan.says("safe_backfill", "blocker", "division by zero")?;
        plan.finding("rows to fill", "note")?;
    }
    db.call("CALL safe_backfill_using('t', 'c', '1 / (id - 77)')")?
        .failed_with("22012")?;
    Ok(())
}

#[test]
fn a_slow_filter_is_tried_on_fewer_rows() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    // 18 s for all rows.
    db.execute(
        "CREATE FUNCTION slowly(int) RETURNS boolean LANGUAGE plpgsql STABLE
         AS 'BEGIN PERFORM pg_sleep(0.001); RETURN $1 % 2 = 0; END'",
    )?;
    let rows = plan(&db, "'t', 'c', 1, filter => 'slowly(id)'")?.finding("rows to fill", "note")?;
    let due = number(&rows)?;
    let bound = number(rows.split("± ").nth(1).context("a bound")?)?;
    ensure!((due - 9000.0).abs() <= bound, "{rows}");
    ensure!(rows.contains("blocks were read; the bound"), "{rows}");
    Ok(())
}

#[test]
fn leaf_tables_of_which_no_block_was_drawn_count_all_the_same() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, filler text) PARTITION BY RANGE (id);
         DO $$BEGIN
           EXECUTE 'CREATE TABLE large PARTITION OF t FOR VALUES FROM (0) TO (1000000)';
           FOR i IN 1..40 LOOP
             EXECUTE format('CREATE TABLE t%s PARTITION OF t FOR VALUES FROM (%s) TO (%s)',
                            i, 1000000 * i, 1000000 * (i + 1));
           END LOOP; END$$;
         CREATE INDEX ON t (filler);
         INSERT INTO t SELECT i, repeat('x', 200) FROM generate_series(1, 400000) i;
         INSERT INTO t SELECT 1000000 * i, 'small' FROM generate_series(1, 40) i;
         ALTER TABLE t ADD c int",
    )?;
    // One for each leaf, though only some of the small ones are among the blocks that were drawn.
    plan(&db, "'t', 'c', 1")?.says("index size", "ok", "41 indexes grow")
}

#[test]
fn trees_are_sampled_as_a_whole() -> Result<()> {
    let db = Database::new()?;
    db.execute(
        "CREATE TABLE t (id int, filler text, c int) PARTITION BY RANGE (id);
         CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (60000);
         CREATE TABLE t2 (c int, id int, filler text);
         ALTER TABLE t ATTACH PARTITION t2 FOR VALUES FROM (60000) TO (80000);
         CREATE TABLE t3 PARTITION OF t DEFAULT;
         CREATE INDEX ON t (id);
         INSERT INTO t SELECT i, repeat('x', 500), CASE WHEN i % 5 = 0 THEN 1 END FROM generate_series(1, 79999) i;
         CREATE TABLE parent (id int, c int); CREATE TABLE child (more int) INHERITS (parent);
         INSERT INTO parent VALUES (1), (2); INSERT INTO child VALUES (3)",
    )?;
    let tree = plan(&db, "'t', 'c', 1")?;
    let rows = tree.finding("rows to fill", "note")?;
    let due = number(&rows)?;
    let bound = number(rows.split("± ").nth(1).context("a bound")?)?;
    ensure!(
        (due - 64_000.0).abs() <= 2.0 * bound && bound < 2000.0,
        "{rows}"
    );
    ensure!(rows.contains("2048 of "), "{rows}");
    tree.says("index size", "ok", "2 indexes")?;
    plan(&db, "'parent', 'c', 1")?.says("rows to fill", "note", "3 rows of 3")
}

#[test]
fn everything_that_takes_part_is_named() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    let nothing = plan(&db, "'t', 'c', 1")?;
    nothing.says("others", "ok", "no triggers, foreign keys, checks")?;
    nothing.says("new rows", "warning", "no default")?;
    db.execute(
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
         CREATE TRIGGER \"Before\" BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TRIGGER afterwards AFTER UPDATE OF c ON t FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TRIGGER unconcerned BEFORE UPDATE OF filler ON t FOR EACH ROW EXECUTE FUNCTION f();
         CREATE TABLE one (id int PRIMARY KEY); INSERT INTO one VALUES (1);
         ALTER TABLE t ADD CONSTRAINT to_one FOREIGN KEY (c) REFERENCES one, ADD CONSTRAINT positive CHECK (c > 0),
               ADD CONSTRAINT old CHECK (id > 10) NOT VALID, ADD twice int GENERATED ALWAYS AS (c * 2) STORED,
               ALTER c SET DEFAULT 1;
         CREATE INDEX ON t (c); CREATE PUBLICATION sent FOR TABLE t",
    )?;
    let plan = self::plan(&db, "'t', 'c', 1")?;
    plan.says("triggers", "warning", "\"Before\" fires before each row")?;
    plan.says("triggers", "note", "afterwards fires after")?;
    assert_eq!(plan.about("triggers").len(), 2);
    plan.says("foreign keys", "note", "to_one")?;
    plan.says("checks", "note", "positive")?;
    plan.says("checks", "warning", "old is NOT VALID")?;
    plan.says("generated columns", "note", "twice")?;
    plan.says("publications", "note", "sent sends each row")?;
    plan.says("new rows", "ok", "has a default")?;
    plan.says("HOT updates", "warning", "\"t_c_idx\"")?;
    plan.says("index size", "ok", "t_pkey")?;
    db.execute("ALTER TABLE t REPLICA IDENTITY NOTHING")?;
    self::plan(&db, "'t', 'c', 1")?.says("publications", "blocker", "no replica identity")?;
    db.call("CALL safe_backfill('t', 'c', 1, 10)")?
        .failed_with("55000")?;
    // PostgreSQL does not use a deferrable key.
    db.execute(
        "ALTER TABLE t REPLICA IDENTITY DEFAULT, DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (id) DEFERRABLE",
    )?;
    self::plan(&db, "'t', 'c', 1")?.says("publications", "blocker", "no replica identity")?;
    db.call("CALL safe_backfill('t', 'c', 1, 10)")?
        .failed_with("55000")?;
    db.execute("ALTER TABLE t REPLICA IDENTITY FULL")?;
    self::plan(&db, "'t', 'c', 1")?.says("publications", "note", "sent sends each row")
}

#[test]
fn who_holds_the_horizon_is_named_and_what_it_costs() -> Result<()> {
    let db = Database::alone(Options::default().set("max_prepared_transactions", 2))?;
    db.execute(TABLE)?;
    plan(&db, "'t', 'c', 1")?.says("xmin horizon", "ok", "nobody")?;
    let mut reader = db.connect()?;
    let pid: i32 = reader.query_one("SELECT pg_backend_pid()", &[])?.get(0);
    let reading = snapshot_of(&mut reader)?;
    db.execute("BEGIN; CREATE TABLE p (); PREPARE TRANSACTION 'forgotten'")?;
    std::thread::sleep(Duration::from_millis(1200));
    let held = plan(&db, "'t', 'c', 1")?;
    held.says("xmin horizon", "warning", &format!("process {pid}"))?;
    held.says("xmin horizon", "warning", "ago")?;
    held.says(
        "xmin horizon",
        "warning",
        "prepared transaction \"forgotten\"",
    )?;
    held.says(
        "HOT updates",
        "warning",
        "since the xmin horizon is held back",
    )?;
    ensure!(
        held.about("HOT updates")[0].2.contains("% would be HOT"),
        "{held:?}"
    );
    reading.rollback()?;
    db.execute("ROLLBACK PREPARED 'forgotten'")?;
    plan(&db, "'t', 'c', 1")?.says("xmin horizon", "ok", "nobody")
}

#[test]
fn rows_that_stay_null_are_not_taken_for_filled_ones() -> Result<()> {
    let db = Database::new()?;
    db.execute(TABLE)?;
    for arguments in [
        "'t', 'c', 1, filter => 'id < 0'",
        "'t', 'c', expression => 'nullif(id, id)'",
    ] {
        let plan = plan(&db, arguments)?;
        let rows = plan.finding("rows to fill", "note")?;
        ensure!(rows.starts_with("0 rows of 20000"), "{rows}");
        ensure!(!rows.contains("no backfill is needed"), "{rows}");
        plan.says("rows left NULL", "warning", "18000 rows that the filter")?;
    }
    let some = plan(&db, "'t', 'c', 1, filter => 'id % 2 = 0'")?;
    some.says("rows left NULL", "warning", "9000 rows that the filter")?;
    assert_eq!(plan(&db, "'t', 'c', 1")?.about("rows left NULL").len(), 0);
    Ok(())
}

#[test]
fn a_backfill_that_is_not_needed_is_said_to_be_so() -> Result<()> {
    let db = Database::new()?;
    db.execute("CREATE TABLE t (id int, c int); CREATE TABLE n (c int NOT NULL)")?;
    plan(&db, "'t', 'c', 1")?.says("rows to fill", "ok", "no backfill is needed")?;
    plan(&db, "'n', 'c'")?.says("need", "ok", "NOT NULL already")
}
