//! Ten jobs at once in the background, and sessions that pause, resume and cancel them at random.

use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use client_tests::{Database, Options};
use postgres::Client;

use crate::application::{Application, ensure_filled_once, hurry, prepare, table};

const JOBS: usize = 10;
const ROWS: i64 = 10_000;
const SESSIONS: usize = 4;
const COMMANDS: usize = 1000;
/// Longer than any command may need to take effect.
const SETTLING: Duration = Duration::from_secs(20);

/// What a session tells a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Command {
    Pause,
    Resume,
    Cancel,
}

use Command::{Cancel, Pause, Resume};

impl Command {
    fn give(self, client: &mut Client, job: i64) -> Result<bool> {
        let function = match self {
            Pause => "pause",
            Resume => "resume",
            Cancel => "cancel",
        };
        let query = format!("SELECT safe_backfill_{function}($1)");
        let row = client.query_one(&query, &[&job]);
        Ok(row
            .with_context(|| format!("{self:?} of job {job}"))?
            .get(0))
    }

    /// Whether it has something to do where that was the last one that had.
    fn matters_after(self, last: Command) -> bool {
        match self {
            Pause => last == Resume,
            Resume => last != Resume,
            Cancel => last != Cancel,
        }
    }
}

/// Numbers that look random (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound as u64) as usize
    }
}

/// A job, and the last command that it took; locked while it is given another, so that the order of the commands is known.
struct Job {
    name: String,
    id: i64,
    last: Mutex<Vec<Command>>,
}

impl Job {
    fn start(db: &Database, number: usize) -> Result<Self> {
        let name = format!("t{number}");
        table(db, &name, ROWS)?;
        let mut client = db.connect()?;
        client.batch_execute("SET test.pause = 0.005")?;
        let start = format!(
            "SELECT safe_backfill_start_using('{name}', 'c', 'id', 10, workers => {})",
            1 + number % 2
        );
        Ok(Job {
            id: client.query_one(&start, &[])?.get(0),
            name,
            last: Mutex::new(vec![Resume]),
        })
    }

    fn give(&self, client: &mut Client, command: Command) -> Result<()> {
        let mut taken = self.last.lock().expect("no session has panicked");
        let last = *taken.last().expect("it was started");
        let done = command.give(client, self.id)?;
        // A job whose process has not begun, or is gone, may be resumed again.
        ensure!(
            done == command.matters_after(last) || (done && command == Resume),
            "job {}: {command:?} returned {done} after {taken:?}",
            self.id
        );
        if done {
            taken.push(command);
        }
        Ok(())
    }

    fn last(&self) -> Command {
        let taken = self.last.lock().expect("no session has panicked");
        *taken.last().expect("it was started")
    }

    /// Whether it is as the last command says: its state, and the process that works on it.
    fn is_as_told(&self, client: &mut Client) -> Result<Result<(), String>> {
        let row = client.query_one(
            "SELECT p.state, p.pid, j.state, p.last_error, j.pid
             FROM safe_backfill_progress p JOIN safe_backfill_job j USING (job_id) WHERE job_id = $1",
            &[&self.id],
        )?;
        let (state, pid): (String, Option<i32>) = (row.get(0), row.get(1));
        let is_right = match self.last() {
            Pause => state == "paused",
            Cancel => state == "cancelled" && pid.is_none(),
            Resume => state == "completed" || state == "filling" && pid.is_some(),
        };
        Ok(if is_right {
            Ok(())
        } else {
            let taken = self.last.lock().expect("no session has panicked");
            Err(format!(
                "job {} is {state} (process {pid:?}, stored: {} of {:?}, error {:?}) after {:?}",
                self.id,
                row.get::<_, String>(2),
                row.get::<_, Option<i32>>(4),
                row.get::<_, Option<String>>(3),
                &taken[taken.len().saturating_sub(8)..]
            ))
        })
    }

    fn rows(&self, client: &mut Client) -> Result<i64> {
        let query = "SELECT count(*) FROM log WHERE name = $1 AND NOT app";
        Ok(client.query_one(query, &[&self.name])?.get(0))
    }
}

fn storm(db: &Database, jobs: &[Job], seed: u64) -> Result<()> {
    let session = &|number: usize| {
        let mut random = Random(seed.wrapping_add(number as u64 * 0x9E37_79B9) | 1);
        let mut client = db.connect()?;
        for _ in 0..COMMANDS / SESSIONS {
            let command = [Pause, Resume, Cancel][random.below(3)];
            jobs[random.below(JOBS)].give(&mut client, command)?;
            thread::sleep(Duration::from_millis(random.below(20) as u64));
        }
        anyhow::Ok(())
    };
    thread::scope(|scope| {
        let sessions: Vec<_> = (0..SESSIONS)
            .map(|number| scope.spawn(move || session(number)))
            .collect();
        sessions
            .into_iter()
            .try_for_each(|session| session.join().expect("a session of the storm"))
    })
}

/// Each job comes to what its last command says, and fills no row if that was to stop.
fn each_is_as_told(db: &Database, jobs: &[Job]) -> Result<()> {
    let mut client = db.connect()?;
    let began = Instant::now();
    loop {
        let mut wrong = vec![];
        for job in jobs {
            wrong.extend(job.is_as_told(&mut client)?.err());
        }
        if wrong.is_empty() {
            break;
        }
        ensure!(began.elapsed() < SETTLING, "{wrong:#?}");
        thread::sleep(Duration::from_millis(20));
    }
    // A batch that had begun.
    thread::sleep(Duration::from_secs(1));
    let mut rows = || -> Result<Vec<i64>> {
        let still = jobs.iter().filter(|job| job.last() != Resume);
        still.map(|job| job.rows(&mut client)).collect()
    };
    let before = rows()?;
    thread::sleep(Duration::from_secs(1));
    assert_eq!(rows()?, before);
    Ok(())
}

fn ten_jobs_in_a_storm(seed: u64) -> Result<()> {
    // A worker that was told to end has its slot for a little longer.
    let db = Database::alone(Options::default().set("max_worker_processes", 100))?;
    prepare(&db)?;
    let jobs = (0..JOBS).map(|number| Job::start(&db, number));
    let jobs: Vec<Job> = jobs.collect::<Result<_>>()?;
    let names: Vec<&str> = jobs.iter().map(|job| job.name.as_str()).collect();
    let application = Application::start(&db, &names);
    storm(&db, &jobs, seed)?;
    each_is_as_told(&db, &jobs)?;
    let growth = application.stop()?;

    let mut client = db.connect()?;
    for job in jobs.iter().filter(|job| job.last() != Resume) {
        job.give(&mut client, Resume)?;
    }
    hurry(&db)?;
    db.wait_until("SELECT count(*) = 10 AND bool_and(state = 'completed') FROM safe_backfill_job")?;
    db.wait_until(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill'",
    )?;
    let mut rows = 0;
    for name in names {
        ensure_filled_once(&db, name)?;
        rows += db.value::<i64>(&format!("SELECT count(*) FROM {name}"))?;
    }
    assert_eq!(rows, JOBS as i64 * ROWS + growth);
    Ok(())
}

#[test]
fn ten_jobs_end_in_the_state_their_last_command_says() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    ten_jobs_in_a_storm(seed).with_context(|| format!("seed {seed}"))
}

/// What may happen to a run, whoever does it.
fn disturb(db: &Database, random: &mut Random) -> Result<()> {
    const ANY_WORKER: &str = "FROM (SELECT pid FROM pg_stat_activity
        WHERE backend_type = 'pg_safe_backfill' ORDER BY random() LIMIT 1) AS worker";
    const EACH_JOB: &str = "FROM safe_backfill_job WHERE finished_at IS NULL";
    let statement = match random.below(8) {
        0 => format!("SELECT pg_terminate_backend(pid) {ANY_WORKER}"),
        1 => format!("SELECT pg_cancel_backend(pid) {ANY_WORKER}"),
        2 => "VACUUM FULL t".into(),
        3 => "BEGIN; LOCK TABLE t; SELECT pg_sleep(0.05); COMMIT".into(),
        4 => "BEGIN; SELECT FROM t WHERE id % 100 = 7 FOR UPDATE; SELECT pg_sleep(0.1); COMMIT"
            .into(),
        5 => format!("SELECT safe_backfill_pause(job_id) {EACH_JOB}"),
        6 => format!("SELECT safe_backfill_cancel(job_id) {EACH_JOB}"),
        _ => format!(
            "UPDATE safe_backfill_job SET workers = {}",
            1 + random.below(4)
        ),
    };
    db.execute(&statement).with_context(|| statement.clone())
}

/// Has the job go on if it does not.
fn resume(db: &Database, job: i64) -> Result<()> {
    let query = "SELECT safe_backfill_resume($1)";
    db.connect()?.query_one(query, &[&job])?;
    Ok(())
}

/// Has the job go on until it is completed.
fn ends_if_it_is_resumed(db: &Database, job: i64) -> Result<()> {
    const STATE: &str = "SELECT format('%s by process %s, error: %s; processes: %s', state, pid, error,
            (SELECT string_agg(format('%s %s %s', a.pid, wait_event, query), ', ') FROM pg_stat_activity a
             WHERE backend_type = 'pg_safe_backfill'))
        FROM safe_backfill_job";
    let began = Instant::now();
    while db.value::<String>("SELECT state FROM safe_backfill_job")? != "completed" {
        ensure!(
            began.elapsed() < SETTLING,
            "it is {}",
            db.value::<String>(STATE)?
        );
        resume(db, job)?;
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn disturbed(seed: u64) -> Result<()> {
    let db = Database::alone(Options::default().set("max_worker_processes", 100))?;
    prepare(&db)?;
    table(&db, "t", ROWS * 2)?;
    let mut client = db.connect()?;
    client.batch_execute("SET test.pause = 0.001")?;
    let start = "SELECT safe_backfill_start_using('t', 'c', 'id', 10, workers => 3)";
    let job: i64 = client.query_one(start, &[])?.get(0);
    let application = Application::start(&db, &["t"]);
    let mut random = Random(seed | 1);
    for _ in 0..80 {
        disturb(&db, &mut random)?;
        thread::sleep(Duration::from_millis(random.below(150) as u64));
        resume(&db, job)?;
    }
    let growth = application.stop()?;
    hurry(&db)?;
    ends_if_it_is_resumed(&db, job)?;
    db.wait_until(
        "SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pg_safe_backfill'",
    )?;
    // NULLs that came at the very end are nobody's fault.
    db.call("CALL safe_backfill_using('t', 'c', 'id')")?
        .succeeded()?;
    ensure_filled_once(&db, "t")?;
    let rows: i64 = db.value("SELECT count(*) FROM t")?;
    assert_eq!(rows, ROWS * 2 + growth);
    Ok(())
}

#[test]
fn a_job_of_several_processes_misses_nothing_however_it_is_disturbed() -> Result<()> {
    let seed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    disturbed(seed).with_context(|| format!("seed {seed}"))
}
