//! A table whose updates are logged, and an application that goes on with its work on it beside a run.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Result, ensure};
use client_tests::Database;
use postgres::Client;

/// What the application writes into the column, whatever was there.
const VALUE: i32 = -1;
/// Between two statements of a session.
const BREATH: Duration = Duration::from_micros(500);

/// Makes what [`table`] needs, once in a database.
///
/// Each row that gets a value is logged with the process that gave it, and takes `test.pause` seconds where that is set.
pub fn prepare(db: &Database) -> Result<()> {
    db.execute(
        "CREATE TABLE log (name text, id int, app bool, pid int);
         CREATE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log VALUES (TG_TABLE_NAME, NEW.id, NEW.app, pg_backend_pid());
             PERFORM pg_sleep(nullif(current_setting('test.pause', true), '')::float8);
             RETURN NULL;
         END $$",
    )
}

/// Has rows take no time any more, in all sessions.
pub fn hurry(db: &Database) -> Result<()> {
    db.execute(
        "CREATE OR REPLACE FUNCTION log() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO log VALUES (TG_TABLE_NAME, NEW.id, NEW.app, pg_backend_pid());
             RETURN NULL;
         END $$",
    )
}

/// A table of about 30 rows to a block, to be filled with each row's `id`.
pub fn table(db: &Database, name: &str, rows: i64) -> Result<()> {
    db.execute(&format!(
        "CREATE TABLE {name} (id int PRIMARY KEY, filler text DEFAULT repeat('x', 200), app bool DEFAULT false,
                              c int DEFAULT {VALUE});
         INSERT INTO {name} SELECT i, repeat('x', 200), false, NULL FROM generate_series(1, {rows}) i;
         CREATE SEQUENCE {name}_id START {rows} INCREMENT 1;
         SELECT nextval('{name}_id');
         CREATE TRIGGER log AFTER UPDATE ON {name} FOR EACH ROW
             WHEN (OLD.c IS NULL AND NEW.c IS NOT NULL) EXECUTE FUNCTION log()"
    ))
}

/// Checks that nothing of the table was missed, lost, overwritten or filled twice; returns how many rows were filled.
pub fn ensure_filled_once(db: &Database, name: &str) -> Result<i64> {
    let wrong: i64 = db.value(&format!(
        "SELECT count(*) FROM {name} WHERE c IS DISTINCT FROM CASE WHEN app THEN {VALUE} ELSE id END"
    ))?;
    ensure!(wrong == 0, "{name}: {wrong} rows are missing or wrong");
    let twice: i64 = db.value(&format!(
        "SELECT count(*) FROM (SELECT FROM log WHERE name = '{name}' GROUP BY id HAVING count(*) > 1) AS twice"
    ))?;
    ensure!(twice == 0, "{name}: {twice} rows were filled twice");
    db.value(&format!(
        "SELECT count(*) FROM log WHERE name = '{name}' AND NOT app"
    ))
}

/// How many processes have filled rows of the table.
pub fn processes(db: &Database, name: &str) -> Result<i64> {
    db.value(&format!(
        "SELECT count(DISTINCT pid) FROM log WHERE name = '{name}' AND NOT app"
    ))
}

/// Sessions that insert, update and delete rows of some tables.
pub struct Application {
    over: Arc<AtomicBool>,
    sessions: Vec<JoinHandle<Result<i64>>>,
}

impl Application {
    /// Starts two sessions on tables that [`table`] has made.
    pub fn start(db: &Database, tables: &[&str]) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let sessions = (1..=2).map(|seed| {
            let (db, over) = (db.clone(), Arc::clone(&over));
            let tables: Vec<String> = tables.iter().map(|name| (*name).into()).collect();
            thread::spawn(move || work(&db, &tables, seed, &over))
        });
        Application {
            sessions: sessions.collect(),
            over,
        }
    }

    /// Ends them. Returns how many rows more there are.
    pub fn stop(mut self) -> Result<i64> {
        self.over.store(true, Ordering::Relaxed);
        let mut growth = 0;
        for session in self.sessions.drain(..) {
            growth += session.join().expect("a session of the application")?;
        }
        Ok(growth)
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn work(db: &Database, tables: &[String], seed: u32, over: &AtomicBool) -> Result<i64> {
    let mut client = db.connect()?;
    client.batch_execute(&format!("SELECT setseed({seed} / 10.0)"))?;
    let mut growth = 0;
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            break;
        }
        growth += change(&mut client, &tables[turn % tables.len()])?;
        thread::sleep(BREATH);
    }
    Ok(growth)
}

/// Changes a few rows, one by one; returns how many more there are.
fn change(client: &mut Client, name: &str) -> Result<i64> {
    let any = format!("(SELECT (random() * last_value)::int FROM {name}_id)");
    client.execute(
        &format!("UPDATE {name} SET c = {VALUE}, app = true WHERE id = {any}"),
        &[],
    )?;
    // The filler alone: the row moves, and is to be filled where it is now.
    client.execute(
        &format!("UPDATE {name} SET filler = repeat('y', 220) WHERE id = {any}"),
        &[],
    )?;
    let deleted = client.execute(&format!("DELETE FROM {name} WHERE id = {any}"), &[])?;
    client.execute(
        &format!(
            "INSERT INTO {name} (id, app, c)
             SELECT id, id % 2 = 0, CASE id % 2 WHEN 0 THEN {VALUE} END FROM nextval('{name}_id') AS id"
        ),
        &[],
    )?;
    Ok(1 - deleted as i64)
}
