//! Logical replication: the table of jobs is nobody's business but this server's.

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options, Run, SUPERUSER, saying};
use postgres::config::Host;

const CALL: &str = "CALL safe_backfill('t', 'c', 1, 50)";
const ROWS: i64 = 3000;
/// What is on both sides.
const TABLE: &str = "CREATE TABLE t (id int PRIMARY KEY, c int DEFAULT 1, d int DEFAULT 1)";

/// A server that can publish, with a table that is slow to update as long as `slow` has a row.
fn publisher() -> Result<Database> {
    let db = Database::alone(Options::default().set("wal_level", "logical"))?;
    db.execute(&format!(
        "{TABLE}; INSERT INTO t SELECT i, NULL, NULL FROM generate_series(1, {ROWS}) i;
         CREATE UNLOGGED TABLE slow (seconds float8);
         CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             PERFORM pg_sleep(seconds) FROM slow;
             RETURN NEW;
         END $$;
         CREATE TRIGGER pause BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION pause()"
    ))?;
    Ok(db)
}

/// A server of its own to subscribe, with the table and the extension.
fn subscriber() -> Result<Database> {
    let db = Database::alone(Options::default().set("wal_retrieve_retry_interval", "100ms"))?;
    db.execute(TABLE)?;
    Ok(db)
}

/// The same, but the extension was never installed in its database.
fn subscriber_without_extension() -> Result<Database> {
    let db = subscriber()?;
    db.execute("DROP EXTENSION pg_safe_backfill")?;
    Ok(db)
}

/// Subscribes and waits for the copies of all tables that are published now.
fn subscribe(subscriber: &Database, publisher: &Database, publication: &str) -> Result<()> {
    let config = publisher.server().config(SUPERUSER, publisher.name());
    let (Some(Host::Unix(sockets)), Some(port)) =
        (config.get_hosts().first(), config.get_ports().first())
    else {
        anyhow::bail!("the publisher listens on a socket");
    };
    subscriber.execute(&format!(
        "CREATE SUBSCRIPTION s CONNECTION 'host={} port={port} user={SUPERUSER} dbname={}' PUBLICATION {publication}",
        sockets.display(),
        publisher.name()
    ))?;
    subscriber.wait_until("SELECT bool_and(srsubstate = 'r') FROM pg_subscription_rel")
}

/// What is written to the publisher's table now arrives at the subscriber.
fn replicates(publisher: &Database, subscriber: &Database) -> Result<()> {
    let id: i32 = publisher.value("INSERT INTO t SELECT max(id) + 1 FROM t RETURNING id")?;
    subscriber
        .wait_until(&format!("SELECT count(*) = 1 FROM t WHERE id = {id}"))
        .context("replication has stopped")
}

/// The rows that were filled arrive at the subscriber.
fn filled_rows_arrive(subscriber: &Database) -> Result<()> {
    subscriber.wait_until(&format!(
        "SELECT count(*) = {ROWS} FROM t WHERE c = 1 AND id <= {ROWS}"
    ))
}

fn start_slowly(publisher: &Database) -> Result<Run> {
    publisher.execute("INSERT INTO slow VALUES (0.01)")?;
    let run = publisher.start(CALL)?;
    run.wait_for_rows("t", 50)?;
    Ok(run)
}

/// Several batches begin and end.
fn batches_go_on(publisher: &Database) -> Result<()> {
    let filled: i64 = publisher.value("SELECT count(*) FROM t WHERE c = 1")?;
    publisher.wait_until(&format!(
        "SELECT count(*) > {} FROM t WHERE c = 1",
        filled + 50
    ))
}

/// The CALL ends well, after having said once that the table of jobs is not published as part of `publication`.
fn ends_naming(publisher: &Database, run: Run, publication: &str) -> Result<()> {
    ensure!(
        !run.has_ended(),
        "the CALL ended before it was to be looked at"
    );
    publisher.execute("DELETE FROM slow")?;
    let notices = run.end()?.succeeded()?;
    let said = saying(&notices, &format!("\"{publication}\""));
    ensure!(
        said.len() == 1 && said[0].severity == "NOTICE",
        "{notices:#?}"
    );
    assert_eq!(persistence(publisher)?, "u");
    Ok(())
}

/// `u` for unlogged, which is never published; `p` otherwise.
fn persistence(db: &Database) -> Result<String> {
    db.value(
        "SELECT string_agg(DISTINCT relpersistence::text, ' ') FROM pg_class
         WHERE oid IN (to_regclass('safe_backfill_job'), to_regclass('safe_backfill_part'))",
    )
}

#[test]
fn a_subscriber_of_all_tables_needs_no_extension_during_and_after_a_call() -> Result<()> {
    let (publisher, subscriber) = (publisher()?, subscriber_without_extension()?);
    publisher.execute("DROP EXTENSION pg_safe_backfill")?;
    publisher.execute("CREATE PUBLICATION everything FOR ALL TABLES")?;
    subscribe(&subscriber, &publisher, "everything")?;
    publisher.execute("CREATE EXTENSION pg_safe_backfill")?;

    let run = start_slowly(&publisher)?;
    replicates(&publisher, &subscriber)?;
    ends_naming(&publisher, run, "everything")?;

    replicates(&publisher, &subscriber)?;
    filled_rows_arrive(&subscriber)?;
    // Once is enough.
    let notices = publisher
        .call("CALL safe_backfill('t', 'd', 1)")?
        .succeeded()?;
    ensure!(
        saying(&notices, "\"everything\"").is_empty(),
        "{notices:#?}"
    );
    replicates(&publisher, &subscriber)
}

#[test]
fn a_subscriber_of_a_schema_needs_no_extension_whoever_calls() -> Result<()> {
    let (publisher, subscriber) = (publisher()?, subscriber_without_extension()?);
    // With the extension elsewhere, nothing has to be done.
    publisher.execute(
        "CREATE SCHEMA app; ALTER TABLE t SET SCHEMA app;
         CREATE PUBLICATION of_app FOR TABLES IN SCHEMA app",
    )?;
    let notices = publisher
        .call("CALL safe_backfill('app.t', 'd', 1)")?
        .succeeded()?;
    ensure!(saying(&notices, "\"of_app\"").is_empty(), "{notices:#?}");
    assert_eq!(persistence(&publisher)?, "p");

    // The role that owns the table does not own the table of jobs.
    publisher.execute(
        "CREATE ROLE application LOGIN; GRANT SELECT ON slow TO application;
         GRANT CREATE ON SCHEMA public TO application;
         ALTER TABLE app.t OWNER TO application; ALTER TABLE app.t SET SCHEMA public;
         DROP PUBLICATION of_app; CREATE PUBLICATION of_t FOR TABLE t",
    )?;
    subscribe(&subscriber, &publisher, "of_t")?;
    publisher.execute("ALTER PUBLICATION of_t ADD TABLES IN SCHEMA public")?;
    publisher.execute("INSERT INTO slow VALUES (0.01)")?;
    let run = publisher.start_as("application", "", CALL)?;
    publisher.wait_until("SELECT count(*) > 50 FROM t WHERE c = 1")?;
    replicates(&publisher, &subscriber)?;
    ends_naming(&publisher, run, "of_t")?;
    filled_rows_arrive(&subscriber)
}

#[test]
fn a_schema_published_in_the_middle_of_a_run_stops_no_subscriber() -> Result<()> {
    let (publisher, subscriber) = (publisher()?, subscriber_without_extension()?);
    publisher.execute("CREATE PUBLICATION app FOR TABLE t")?;
    subscribe(&subscriber, &publisher, "app")?;
    let run = start_slowly(&publisher)?;
    assert_eq!(persistence(&publisher)?, "p");

    publisher.execute("ALTER PUBLICATION app ADD TABLES IN SCHEMA public")?;

    batches_go_on(&publisher)?;
    replicates(&publisher, &subscriber)?;
    ends_naming(&publisher, run, "app")?;
    filled_rows_arrive(&subscriber)
}

#[test]
fn a_publication_of_all_tables_created_in_the_middle_of_a_run_stops_no_subscriber() -> Result<()> {
    let (publisher, subscriber) = (publisher()?, subscriber_without_extension()?);
    publisher.execute("CREATE PUBLICATION app FOR TABLE t")?;
    subscribe(&subscriber, &publisher, "app")?;
    let run = start_slowly(&publisher)?;

    publisher.execute("CREATE PUBLICATION everything FOR ALL TABLES")?;
    // For the subscriber nothing is left of the time without that publication, in which it could not be looked up.
    batches_go_on(&publisher)?;
    replicates(&publisher, &subscriber)?;
    subscriber.execute("ALTER SUBSCRIPTION s SET PUBLICATION everything WITH (refresh = false)")?;

    batches_go_on(&publisher)?;
    replicates(&publisher, &subscriber)?;
    ends_naming(&publisher, run, "everything")?;
    filled_rows_arrive(&subscriber)
}

/// The view shows the job of column `c` alone, which has filled everything.
fn has_filled_on_its_own(db: &Database) -> Result<()> {
    let jobs: String = db.value(
        "SELECT string_agg(concat_ws(' ', column_name, state, rows_filled), ', ') FROM safe_backfill_progress",
    )?;
    assert_eq!(jobs, format!("c completed {ROWS}"));
    assert_eq!(
        db.value::<i64>("SELECT count(*) FROM t WHERE c IS NULL")?,
        0
    );
    Ok(())
}

/// A subscriber with the extension, to whom the publisher's jobs were copied with the other tables.
fn subscriber_with_copied_jobs(publisher: &Database) -> Result<Database> {
    let subscriber = subscriber()?;
    publisher.execute("CREATE PUBLICATION everything FOR ALL TABLES")?;
    subscribe(&subscriber, publisher, "everything")?;
    let jobs: i64 = subscriber.value("SELECT count(*) FROM safe_backfill_job")?;
    ensure!(jobs == 1, "{jobs} jobs were copied");
    Ok(subscriber)
}

#[test]
fn a_finished_job_copied_from_the_publisher_is_not_taken_for_one_of_the_subscriber() -> Result<()> {
    let publisher = publisher()?;
    publisher
        .call("CALL safe_backfill('t', 'd', 1)")?
        .succeeded()?;
    let subscriber = subscriber_with_copied_jobs(&publisher)?;
    subscriber.call(CALL)?.succeeded()?;
    has_filled_on_its_own(&subscriber)
}

#[test]
fn an_unfinished_job_copied_from_the_publisher_is_not_taken_up_by_the_subscriber() -> Result<()> {
    let publisher = publisher()?;
    let run = start_slowly(&publisher)?;
    run.cancel()?;
    run.end()?.failed_with("57014")?;
    let subscriber = subscriber_with_copied_jobs(&publisher)?;
    assert_eq!(
        subscriber.value::<i64>("SELECT count(*) FROM safe_backfill_progress")?,
        0
    );
    // Nobody has filled anything here, as far as this server's own jobs are concerned.
    subscriber.execute("UPDATE t SET c = NULL")?;
    subscriber.call(CALL)?.succeeded()?;
    has_filled_on_its_own(&subscriber)?;

    // The publisher has its own job still, and goes on with it; what the subscriber was told of it stays hidden there.
    publisher.execute("DELETE FROM slow")?;
    publisher.call(CALL)?.succeeded()?;
    has_filled_on_its_own(&publisher)?;
    replicates(&publisher, &subscriber)?;
    has_filled_on_its_own(&subscriber)
}

#[test]
fn a_publication_that_names_a_table_of_jobs_is_refused_before_anything_is_touched() -> Result<()> {
    for table in ["safe_backfill_job", "safe_backfill_part"] {
        refused_while_published(table)?;
    }
    Ok(())
}

fn refused_while_published(table: &str) -> Result<()> {
    let publisher = publisher()?;
    publisher.execute(&format!(
        "CREATE PUBLICATION \"of Jobs\" FOR TABLE t, {table}"
    ))?;
    let calls = [
        CALL,
        "CALL safe_backfill('t', 'c', 1, 50, filter => 'id > 10')",
        "CALL safe_backfill_using('t', 'c', 'id')",
    ];
    for call in calls {
        let error = publisher.call(call)?.failed_with("55000")?;
        ensure!(error.message.contains("\"of Jobs\""), "{error}");
        let hint = error.hint.clone().unwrap_or_default();
        ensure!(
            hint.contains("ALTER PUBLICATION")
                && hint.contains(&format!("DROP TABLE public.{table};")),
            "{error}"
        );
    }
    // One of all tables beside it makes no difference.
    publisher.execute("CREATE PUBLICATION everything FOR ALL TABLES")?;
    publisher.call(CALL)?.failed_with("55000")?;
    assert_eq!(
        publisher.value::<i64>("SELECT count(c) FROM t")?
            + publisher.value::<i64>("SELECT count(*) FROM safe_backfill_job")?,
        0
    );
    assert_eq!(persistence(&publisher)?, "p");

    publisher.execute("DROP PUBLICATION everything")?;
    publisher.execute(&format!("ALTER PUBLICATION \"of Jobs\" DROP TABLE {table}"))?;
    publisher.call(CALL)?.succeeded()?;
    Ok(())
}
