//! A CALL that fails leaves nothing behind, neither in the job table nor in its session.

use anyhow::{Result, ensure};
use client_tests::{Database, failure};
use postgres::Client;

const CALLS: [&str; 3] = [
    "CALL safe_backfill('t', 'c', 1)",
    "CALL safe_backfill('t', 'c', 1, 50, filter => 'n > 0')",
    "CALL safe_backfill_using('t', 'c', 'n + 1')",
];

/// A table that no row can be updated of.
fn table(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE t (id int PRIMARY KEY, n int, c int DEFAULT 1);
         INSERT INTO t SELECT i, i, NULL FROM generate_series(1, 1000) i;
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             RAISE 'not today' USING ERRCODE = 'P0001';
         END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()",
    )
}

fn fail(client: &mut Client, call: &str) -> Result<()> {
    let error = client.batch_execute(call);
    failure(error.expect_err("the trigger refuses every row"), "P0001")?;
    Ok(())
}

#[test]
fn a_call_that_fails_before_its_first_batch_leaves_no_job() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    for call in CALLS {
        db.call(call)?.failed_with("P0001")?;
        let jobs: i64 = db.value("SELECT count(*) FROM safe_backfill_job")?;
        ensure!(jobs == 0, "{call}: {jobs} jobs");
    }
    db.execute("DROP TRIGGER refuse ON t")?;
    db.call(CALLS[0])?.succeeded()?;
    assert_eq!(
        db.value::<String>("SELECT string_agg(state, ' ') FROM safe_backfill_job")?,
        "completed"
    );
    Ok(())
}

#[test]
fn plans_do_not_pile_up_in_a_session_whose_calls_fail() -> Result<()> {
    let db = Database::new()?;
    table(&db)?;
    for call in CALLS {
        let mut client = db.connect()?;
        let mut plans = vec![];
        for time in 1..=50 {
            fail(&mut client, call)?;
            if time == 5 || time == 50 {
                plans.push(plans_kept(&mut client)?);
            }
        }
        ensure!(plans[0] == plans[1], "{call}: {plans:?}");
    }
    Ok(())
}

fn plans_kept(client: &mut Client) -> Result<i64> {
    // In the simple protocol, for a prepared statement is a plan too.
    let messages = client.simple_query(
        "SELECT count(*) FROM pg_backend_memory_contexts WHERE name LIKE 'CachedPlan%'",
    )?;
    let count = messages.iter().find_map(|message| match message {
        postgres::SimpleQueryMessage::Row(row) => row.get(0)?.parse().ok(),
        _ => None,
    });
    anyhow::Context::context(count, "a count")
}
