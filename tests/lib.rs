//! What tests need to look at the extension from outside: a database each, and CALLs that run in the background.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use postgres::types::FromSqlOwned;
use postgres::{CancelToken, Client, NoTls};
pub use testenv::{Notice, Notices, Options, SUPERUSER, Server, Shutdown};

/// How long anything may take that is waited for; far more than it does, even on a machine with other things to do.
pub const PATIENCE: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(5);

/// A database of a test's own, with the extension.
#[derive(Debug, Clone)]
pub struct Database {
    server: Arc<Server>,
    name: String,
}

impl Database {
    /// A new database on the server that the tests share.
    pub fn new() -> Result<Self> {
        static SHARED: Mutex<Option<Arc<Server>>> = Mutex::new(None);
        static COUNT: Mutex<u32> = Mutex::new(0);
        let server = {
            let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
            if shared.is_none() {
                let options = Options::default()
                    .set("max_connections", 200)
                    .set("max_worker_processes", 50)
                    .set("max_prepared_transactions", 5);
                *shared = Some(Arc::new(start(options)?));
            }
            shared.clone().context("the shared server")?
        };
        let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
        *count += 1;
        let name = format!("test{count}");
        server.create_database(&name)?;
        Self::with_extension(server, name)
    }

    /// A database on a server of its own, which the test may stop, crash and configure.
    pub fn alone(options: Options) -> Result<Self> {
        let server = Arc::new(start(options)?);
        Self::with_extension(server, "postgres".into())
    }

    fn with_extension(server: Arc<Server>, name: String) -> Result<Self> {
        let database = Database { server, name };
        database.execute("CREATE EXTENSION pg_safe_backfill")?;
        Ok(database)
    }

    /// The server it is on.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A session of the superuser.
    pub fn connect(&self) -> Result<Client> {
        self.connect_as(SUPERUSER)
    }

    /// A session of a role.
    pub fn connect_as(&self, role: &str) -> Result<Client> {
        self.server.connect_as(role, &self.name)
    }

    /// Runs statements in a session of their own.
    pub fn execute(&self, sql: &str) -> Result<()> {
        Ok(self.connect()?.batch_execute(sql)?)
    }

    /// The only value of a query, run in a session of its own.
    pub fn value<T: FromSqlOwned>(&self, query: &str) -> Result<T> {
        Ok(self.connect()?.query_one(query, &[])?.try_get(0)?)
    }

    /// Waits until a query is true, asking in a session of its own.
    pub fn wait_until(&self, query: &str) -> Result<()> {
        let mut client = self.connect()?;
        let began = Instant::now();
        let mut holds = || -> Result<bool> {
            let row = client.query_opt(query, &[])?;
            Ok(row.is_some_and(|row| row.get::<_, Option<bool>>(0) == Some(true)))
        };
        while !holds()? {
            ensure!(began.elapsed() < PATIENCE, "gave up waiting for: {query}");
            thread::sleep(POLL);
        }
        Ok(())
    }

    /// Has every row of `table` take `test.pause` seconds to update, in sessions where that is set.
    pub fn slow_down(&self, table: &str) -> Result<()> {
        self.execute(&format!(
            "CREATE OR REPLACE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                 PERFORM pg_sleep(nullif(current_setting('test.pause', true), '')::float8);
                 RETURN NEW;
             END $$;
             CREATE TRIGGER pause BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION pause()"
        ))
    }

    /// Runs a CALL to its end.
    pub fn call(&self, call: &str) -> Result<Ended> {
        self.call_after("", call)
    }

    /// Runs a CALL to its end, in a session that begins with other statements.
    pub fn call_after(&self, setup: &str, call: &str) -> Result<Ended> {
        self.start_after(setup, call)?.end()
    }

    /// Starts a CALL in the background.
    pub fn start(&self, call: &str) -> Result<Run> {
        self.start_after("", call)
    }

    /// Starts a CALL in the background, in a session that begins with other statements.
    pub fn start_after(&self, setup: &str, call: &str) -> Result<Run> {
        Run::start(self, SUPERUSER, setup, call)
    }

    /// Starts a CALL in the background, in a session of a role.
    pub fn start_as(&self, role: &str, setup: &str, call: &str) -> Result<Run> {
        Run::start(self, role, setup, call)
    }
}

/// A CALL that runs in the background.
pub struct Run {
    /// The process ID of its backend.
    pub pid: i32,
    /// What it says while it runs.
    pub notices: Notices,
    database: Database,
    token: CancelToken,
    thread: JoinHandle<(Client, Result<(), postgres::Error>)>,
}

impl Run {
    fn start(database: &Database, role: &str, setup: &str, call: &str) -> Result<Self> {
        let (mut client, notices) = database.server.connect_collecting(role, &database.name)?;
        client.batch_execute(setup)?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let call = call.to_owned();
        Ok(Run {
            pid,
            notices,
            database: database.clone(),
            token: client.cancel_token(),
            thread: thread::spawn(move || {
                let result = client.batch_execute(&call);
                (client, result)
            }),
        })
    }

    /// Whether the CALL has ended.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits until the job of `table` has filled so many rows, while the CALL runs.
    pub fn wait_for_rows(&self, table: &str, rows: i64) -> Result<()> {
        self.database.wait_until(&format!(
            "SELECT count(*) > 0 FROM safe_backfill_part
             WHERE table_name::text = '{table}' AND rows_filled >= {rows} AND state IN ('filling', 'verifying')"
        ))?;
        ensure!(
            !self.has_ended(),
            "the CALL has ended before it could be looked at"
        );
        Ok(())
    }

    /// Asks the server to cancel the CALL, as Ctrl-C in psql does.
    pub fn cancel(&self) -> Result<()> {
        Ok(self.token.cancel_query(NoTls)?)
    }

    /// Waits for the end of the CALL.
    pub fn end(self) -> Result<Ended> {
        let began = Instant::now();
        while !self.has_ended() {
            if began.elapsed() > PATIENCE {
                self.database
                    .execute(&format!("SELECT pg_terminate_backend({})", self.pid))?;
                bail!("the CALL did not end within {} s", PATIENCE.as_secs());
            }
            thread::sleep(POLL);
        }
        let (client, result) = match self.thread.join() {
            Ok(ended) => ended,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        Ok(Ended {
            client,
            result,
            notices: self.notices.take(),
        })
    }
}

/// How a CALL ended.
pub struct Ended {
    /// The session, which can go on.
    pub client: Client,
    result: Result<(), postgres::Error>,
    /// What it said, unless that was taken while it ran.
    pub notices: Vec<Notice>,
}

impl Ended {
    /// What it said, if it succeeded.
    pub fn succeeded(self) -> Result<Vec<Notice>> {
        self.result.context("the CALL failed")?;
        Ok(self.notices)
    }

    /// The error it ended with, which must have this SQLSTATE.
    pub fn failed_with(self, code: &str) -> Result<Notice> {
        let Err(error) = self.result else {
            bail!("the CALL succeeded; it should have failed with {code}");
        };
        failure(error, code)
    }

    /// The error it ended with, if it failed; a lost connection is an error too.
    pub fn failed(self) -> Result<postgres::Error> {
        match self.result {
            Ok(()) => bail!("the CALL succeeded; it should have failed"),
            Err(error) => Ok(error),
        }
    }
}

/// What the server says in an error, which must have this SQLSTATE.
pub fn failure(error: postgres::Error, code: &str) -> Result<Notice> {
    let Some(reported) = error.as_db_error() else {
        return Err(error).context("not an error of the server");
    };
    let notice = Notice::from(reported.clone());
    ensure!(
        notice.code == code,
        "{code} expected, but got {}: {notice}",
        notice.code
    );
    Ok(notice)
}

/// The only message of a severity.
pub fn only<'a>(notices: &'a [Notice], severity: &str) -> Result<&'a Notice> {
    let mut matching = notices.iter().filter(|notice| notice.severity == severity);
    match (matching.next(), matching.next()) {
        (Some(notice), None) => Ok(notice),
        _ => bail!("exactly one {severity} expected among {notices:#?}"),
    }
}

/// The messages that have `text` in them.
pub fn saying<'a>(notices: &'a [Notice], text: &str) -> Vec<&'a Notice> {
    notices
        .iter()
        .filter(|notice| notice.message.contains(text))
        .collect()
}

/// Sends a signal, such as `-STOP`, to a process of a server.
pub fn signal(signal: &str, pid: i32) -> Result<()> {
    let sent = Command::new("kill")
        .args([signal, &pid.to_string()])
        .status()?;
    ensure!(sent.success(), "no signal was sent to process {pid}");
    Ok(())
}

/// Starts a server that does not outlive this process, however the process ends.
fn start(options: Options) -> Result<Server> {
    static GUARDS: Mutex<Vec<Child>> = Mutex::new(Vec::new());
    let server = Server::start(options)?;
    let guard = guard(&server)?;
    GUARDS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(guard);
    Ok(server)
}

/// A process that waits for the end of this one, then cleans up: nothing drops what is in a `static`, and nothing is
/// dropped at all after Ctrl-C.
fn guard(server: &Server) -> Result<Child> {
    const CLEAN_UP: &str = "
        read -r _
        pid=$(head -n 1 \"$1/postmaster.pid\") && kill -QUIT \"$pid\"
        while kill -0 \"$pid\"; do sleep 0.1; done
        rm -rf \"${1%/data}\" \"$2\"";
    let config = server.config(SUPERUSER, "postgres");
    let sockets = match config.get_hosts() {
        [postgres::config::Host::Unix(path)] => path.as_path(),
        _ => Path::new(""),
    };
    Command::new("sh")
        .args(["-c", CLEAN_UP, "sh"])
        .arg(server.data_directory())
        .arg(sockets)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()
        .context("could not start the guard of the server")
}
