//! The background workers: one for each job in the background, and a launcher that takes up what a restart of the server
//! has interrupted.

use std::rc::Rc;
use std::time::Duration;

use pgrx::pg_sys;

use crate::catalog::relation::Relation;
use crate::catalog::session_settings;
use crate::ddl;
use crate::error::{Change, Error};
use crate::fill::request::{Options, Request};
use crate::fill::target::Target;
use crate::fill::value::Value;
use crate::fill::{helping, run};
use crate::job::control;
use crate::job::home::Home;
use crate::job::method::Method;
use crate::job::recipe::Recipe;
use crate::job::store::Job;
use crate::job::stored::{self, Stored};
use crate::job::taking;
use crate::messages;
use crate::pg::failure::Failure;
use crate::pg::segment::Segment;
use crate::pg::tx::Tx;
use crate::pg::value::Constant;
use crate::pg::worker::{self, Start};
use crate::pg::{databases, message, server};
use crate::run::driver::Driver;
use crate::run::job_worker;
use crate::run::membership::Membership;

/// The C functions that workers run.
const LAUNCHER_MAIN: &str = "safe_backfill_launcher_main";
const DATABASE_MAIN: &str = "safe_backfill_database_main";

/// How long the launcher waits for one database before it goes on to the next.
const DATABASE_PATIENCE: Duration = Duration::from_secs(5);

/// Registers the launcher, if the library is loaded with the server.
pub fn register_launcher() {
    if worker::is_preloading() {
        worker::register("pg_safe_backfill launcher", LAUNCHER_MAIN);
    }
}

/// The worker of one job.
#[pgrx::pg_guard]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn safe_backfill_job_main(argument: pg_sys::Datum) {
    let Some(start) = begin(argument) else { return };
    message::are_about_job(start.job);
    let driver = Driver::of_worker();
    if let Err(error) = work(&driver, start) {
        pg_sys::panic::ErrorReport::from(error).report(pgrx::PgLogLevel::ERROR);
    }
}

/// A worker that helps the process which leads the run of a job.
#[pgrx::pg_guard]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn safe_backfill_helper_main(argument: pg_sys::Datum) {
    let Some(start) = begin(argument) else { return };
    message::are_about_job(start.job);
    let driver = Driver::of_worker();
    let attach = |tx: &Tx| Ok::<_, Error>(Segment::attach(tx, start.segment));
    // Where it is gone, the run has ended before this worker began.
    let Ok(Some(segment)) = driver.transaction(attach) else {
        return;
    };
    if let Err(error) = help(&driver, start, segment) {
        pg_sys::panic::ErrorReport::from(error).report(pgrx::PgLogLevel::ERROR);
    }
}

/// The worker that looks for interrupted jobs in all databases when the server has started.
#[pgrx::pg_guard]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn safe_backfill_launcher_main(_argument: pg_sys::Datum) {
    worker::heed_signals();
    worker::connect(pg_sys::InvalidOid, pg_sys::InvalidOid);
    launch(&Driver::of_worker());
    // After a crash of another process the server starts this one again: only what is there then can be.
    loop {
        worker::wait_for_signals();
    }
}

/// The worker that starts those of the interrupted jobs of one database.
#[pgrx::pg_guard]
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn safe_backfill_database_main(argument: pg_sys::Datum) {
    if begin(argument).is_some()
        && server::is_utf8()
        && let Err(error) = take_up_interrupted(&Driver::of_worker())
    {
        pg_sys::panic::ErrorReport::from(error).report(pgrx::PgLogLevel::ERROR);
    }
}

fn begin(argument: pg_sys::Datum) -> Option<Start> {
    worker::heed_signals();
    let start = worker::begin(argument)?;
    worker::connect(start.database, start.role);
    Some(start)
}

/// Takes the job and works on it to its end.
fn work(driver: &Driver, start: Start) -> Result<(), Error> {
    let id = start.job;
    driver.transaction(|tx| {
        worker::wait_for_transaction(tx, start.transaction);
        Ok::<_, Error>(())
    })?;
    // Its transaction may have been rolled back, and the extension's with it.
    let home = driver.transaction(Home::find)?;
    let taken = driver.with_last_words(
        || taking::take_up(driver, &home, id),
        |tx, failure| control::fail_to_begin(tx, &home, id, failure),
    )?;
    let Some((_lock, stored)) = taken else {
        return Ok(());
    };
    let last_words = |tx: &Tx, failure: &Failure| control::fail(tx, &home, id, failure);
    driver.with_last_words(|| fill(driver, id, &stored), last_words)
}

/// Sweeps blocks that the leader of the run gives out, and tells it of a failure.
fn help(driver: &Driver, start: Start, segment: Segment) -> Result<(), Error> {
    let settings = segment.text();
    let membership = Membership::shared(segment, start.worker as usize, start.of);
    let membership = Rc::new(membership);
    let work = || {
        let home = driver.transaction(Home::find)?;
        let stored = home.patiently(driver, |tx| stored::read(tx, &home, start.job))?;
        let stored = stored.ok_or(Error::NoJob { job: start.job })?;
        apply(driver, &session_settings::parse(&settings)?)?;
        // The leader has done what is done without batches.
        let request = request(driver, &stored, Method::Batch)?;
        let table = &request.target.table_name;
        worker::describe(&messages::worker_activity(start.job, table, &stored.column));
        let job = Job::joined(home, request.assignment(), start.job);
        helping::run(driver, &request, Rc::new(job), &membership)
    };
    driver.with_last_words(work, |_, failure| {
        membership.fail(failure);
        Ok(())
    })?;
    membership.team().leave(membership.worker());
    Ok(())
}

fn apply(driver: &Driver, settings: &[(String, String)]) -> Result<(), Error> {
    for (name, value) in settings {
        driver.transaction(|tx| {
            tx.try_set(name, value);
            Ok::<_, Error>(())
        })?;
    }
    Ok(())
}

/// What the CALL would ask for, proven anew.
fn request(driver: &Driver, stored: &Stored, method: Method) -> Result<Request, Error> {
    let table = stored.table;
    let table_name = driver.transaction(|tx| Ok::<_, Error>(Relation::look_up(tx, table)?.name))?;
    ddl::read(driver, &table_name, table, |tx| {
        let target = Target::prove(tx, table, &stored.column)?;
        if target.number != stored.number {
            return Err(Error::ColumnChanged {
                table: target.table_name,
                column: target.column,
                change: Change::Replaced,
            });
        }
        let value = value(tx, stored, &target)?;
        let options = Options {
            batch_size: stored.batch_size,
            method,
            workers: stored.workers,
        };
        Request::new(tx, target, value, options)
    })
}

/// As the CALL does. The column is locked.
fn fill(driver: &Driver, id: i64, stored: &Stored) -> Result<(), Error> {
    apply(driver, &stored.settings)?;
    let request = request(driver, stored, stored.method)?;
    let table = &request.target.table_name;
    worker::describe(&messages::worker_activity(id, table, &stored.column));
    messages::say_worker_begins(table, &stored.column);
    run::run(driver, &request, Some(id))
}

fn value(tx: &Tx, stored: &Stored, target: &Target) -> Result<Value, Error> {
    let filter = stored.filter.clone();
    match &stored.recipe {
        Recipe::Expression(expression) => Value::of_expression(tx, expression.clone(), filter),
        Recipe::Constant(text) => {
            let constant = Constant::from_text(tx, text, target.column_type)
                .ok_or(Error::NullArgument { argument: "value" })?;
            Value::of_constant(tx, constant, filter, target)
        }
    }
}

/// Has every database looked at, one after the other: each takes a worker slot meanwhile.
fn launch(driver: &Driver) {
    let databases = driver.transaction(|tx| Ok::<_, Error>(databases::all(tx)));
    for database in databases.unwrap_or_default() {
        let start = Start {
            database,
            ..Start::here()
        };
        match worker::start("pg_safe_backfill resumption", DATABASE_MAIN, start) {
            // One whose jobs are locked must not keep the others from theirs.
            Some(started) => started.wait_for_end(DATABASE_PATIENCE),
            None => messages::warn_no_slot_to_look(database.to_u32()),
        }
    }
}

fn take_up_interrupted(driver: &Driver) -> Result<(), Error> {
    let home = match driver.transaction(Home::find) {
        Err(Error::NotInstalled) => return Ok(()),
        home => home?,
    };
    let jobs = home.patiently(driver, |tx| stored::interrupted(tx, &home))?;
    for (job, role) in jobs {
        if job_worker::start(job, role, 0).is_err() {
            messages::warn_no_slot_to_resume(job);
        }
    }
    Ok(())
}
