use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::{Client, Config, NoTls};

use crate::cluster::Cluster;
use crate::notice::{Notice, Notices};
use crate::{Installation, SUPERUSER, interrupt};

const PORT: u16 = 5432;
const POLL: Duration = Duration::from_millis(20);

/// How to set up a server.
#[derive(Debug, Clone, Default)]
pub struct Options {
    settings: Vec<(String, String)>,
    environment: Vec<(String, String)>,
}

impl Options {
    /// Sets a configuration parameter; the last value of a name counts.
    #[must_use]
    pub fn set(mut self, name: &str, value: impl ToString) -> Self {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// Sets a variable in the environment of the server.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.into(), value.to_string()));
        self
    }
}

/// How `pg_ctl stop` shuts a server down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shutdown {
    /// Disconnects everybody and writes a checkpoint.
    Fast,
    /// As a crash: nothing is written, the next start recovers from the WAL.
    Immediate,
}

/// A running private server. Dropping it stops it and removes its files.
#[derive(Debug)]
pub struct Server {
    cluster: Arc<Cluster>,
}

impl Server {
    /// Makes a new cluster and starts it. `fsync` is off unless the options say otherwise: a crash of the
    /// server, but not of the machine, is survived without it.
    pub fn start(options: Options) -> Result<Self> {
        let server = Self::allocate(options.environment)?;
        server.cluster.init()?;
        let defaults = Options::default().set("fsync", "off");
        server.configure_and_start([defaults.settings, options.settings].concat())?;
        Ok(server)
    }

    /// Makes a streaming hot standby of `primary` and starts it.
    pub fn standby_of(primary: &Server, options: Options) -> Result<Self> {
        let standby = Self::allocate(options.environment)?;
        standby.cluster.copy_from(primary.cluster.sockets())?;
        standby.configure_and_start(options.settings)?;
        Ok(standby)
    }

    /// Makes a new cluster, has `pg_upgrade` move the databases of `old` into it, which is stopped, and starts it.
    pub fn upgraded_from(old: &Server, options: Options) -> Result<Self> {
        let server = Self::allocate(options.environment)?;
        server.cluster.init()?;
        server.cluster.upgrade_from(&old.cluster)?;
        server.configure_and_start(options.settings)?;
        Ok(server)
    }

    /// Connects to the database `postgres` as the superuser.
    pub fn connect(&self) -> Result<Client> {
        self.connect_as(SUPERUSER, "postgres")
    }

    /// Connects as a user to a database.
    pub fn connect_as(&self, user: &str, database: &str) -> Result<Client> {
        open(&self.config(user, database))
    }

    /// Connects and calls `listener` for every notice, while the statement that raises it still runs.
    pub fn connect_listening(
        &self,
        user: &str,
        database: &str,
        listener: impl Fn(Notice) + Send + Sync + 'static,
    ) -> Result<Client> {
        let mut config = self.config(user, database);
        config.notice_callback(move |notice| listener(notice.into()));
        open(&config)
    }

    /// Connects and collects every notice.
    pub fn connect_collecting(&self, user: &str, database: &str) -> Result<(Client, Notices)> {
        let (sender, receiver) = mpsc::channel();
        let client = self.connect_listening(user, database, move |notice| {
            // A test that has dropped its notices does not want them.
            let _ = sender.send(notice);
        })?;
        Ok((client, Notices(receiver)))
    }

    /// Connection parameters, for what the other methods don't offer.
    #[must_use]
    pub fn config(&self, user: &str, database: &str) -> Config {
        let mut config = Config::new();
        config
            .host_path(self.cluster.sockets())
            .port(PORT)
            .user(user)
            .dbname(database);
        config
    }

    /// Creates an empty database.
    pub fn create_database(&self, name: &str) -> Result<()> {
        self.connect()?
            .batch_execute(&format!("CREATE DATABASE {name}"))
            .with_context(|| format!("could not create database \"{name}\""))
    }

    /// A client program, such as `pg_dump`, that connects to `database` as the superuser.
    #[must_use]
    pub fn client_program(&self, name: &str, database: &str) -> Command {
        let mut command = self.cluster.installation.client_program(name);
        command
            .env("PGHOST", self.cluster.sockets())
            .env("PGPORT", PORT.to_string())
            .env("PGUSER", SUPERUSER)
            .env("PGDATABASE", database);
        command
    }

    /// `psql` without a start-up file that ends at the first error.
    #[must_use]
    pub fn psql(&self, database: &str) -> Command {
        let mut command = self.client_program("psql", database);
        command.args(["-X", "-v", "ON_ERROR_STOP=1"]);
        command
    }

    /// `pgbench` without its own tables.
    #[must_use]
    pub fn pgbench(&self, database: &str) -> Command {
        let mut command = self.client_program("pgbench", database);
        command.arg("--no-vacuum");
        command
    }

    /// Stops the server; its data stays until it is started again or dropped.
    pub fn stop(&self, shutdown: Shutdown) -> Result<()> {
        let mode = match shutdown {
            Shutdown::Fast => "fast",
            Shutdown::Immediate => "immediate",
        };
        self.cluster.control(&["stop", "-m", mode])
    }

    /// Starts a stopped server on the data it has, after recovery if it needs that.
    pub fn start_again(&self) -> Result<()> {
        self.cluster
            .control(&["start"])
            .with_context(|| format!("the log ends with:\n{}", self.log_tail()))
    }

    /// Stops the server in an orderly way and starts it.
    pub fn restart(&self) -> Result<()> {
        self.stop(Shutdown::Fast)?;
        self.start_again()
    }

    /// Ends the recovery of a standby, which becomes a primary.
    pub fn promote(&self) -> Result<()> {
        self.cluster.control(&["promote"])
    }

    /// Waits until the standby has replayed all that `primary` has written so far.
    pub fn catch_up_with(&self, primary: &Server) -> Result<()> {
        // A record of our own: the place where the next one will be written may be one that nothing reaches for long.
        let write = "SELECT pg_logical_emit_message(true, 'catch up', '')::text";
        let end: String = primary.connect()?.query_one(write, &[])?.get(0);
        let mut standby = self.connect()?;
        wait_for("the standby to catch up", || {
            let query = "SELECT pg_last_wal_replay_lsn() >= $1::text::pg_lsn";
            Ok(standby.query_one(query, &[&end])?.get(0))
        })
    }

    /// Ends a backend with SIGKILL, as the kernel's out-of-memory killer does, and waits until the server has restarted
    /// itself. Until it begins with that, it accepts connections that are lost a moment later.
    pub fn kill_backend(&self, pid: i32) -> Result<()> {
        let before = self.checkpointer()?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("could not kill the backend")?;
        wait_for("the server to restart itself", || {
            Ok(self.checkpointer().is_ok_and(|now| now != before))
        })
    }

    /// The process ID of the checkpointer: another one after each restart.
    fn checkpointer(&self) -> Result<i32> {
        const CHECKPOINTER: &str =
            "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        Ok(self.connect()?.query_one(CHECKPOINTER, &[])?.try_get(0)?)
    }

    /// Ends the postmaster, and it alone, with SIGKILL: its children are left to notice.
    pub fn kill_postmaster(&self) -> Result<()> {
        let pid = self.postmaster().context("the server does not run")?;
        kill(Pid::from_raw(pid), Signal::SIGKILL).context("could not kill the postmaster")
    }

    /// Waits until the server accepts connections, for instance after it has restarted itself.
    pub fn wait_until_ready(&self) -> Result<()> {
        wait_for("the server to accept connections", || {
            Ok(self.connect().is_ok())
        })
    }

    /// The process id of the postmaster; none while the server is stopped.
    #[must_use]
    pub fn postmaster(&self) -> Option<i32> {
        self.cluster.postmaster()
    }

    /// All that the server has logged so far.
    pub fn log(&self) -> Result<String> {
        fs::read_to_string(self.cluster.log()).context("could not read the server log")
    }

    /// The data directory.
    #[must_use]
    pub fn data_directory(&self) -> PathBuf {
        self.cluster.data()
    }

    /// A new directory for the caller's own files, removed with the server.
    pub fn scratch_directory(&self) -> Result<PathBuf> {
        let directory = tempfile::Builder::new()
            .prefix("scratch")
            .tempdir_in(self.cluster.directory())?;
        Ok(directory.keep())
    }

    fn allocate(environment: Vec<(String, String)>) -> Result<Self> {
        let cluster = Arc::new(Cluster::allocate(Installation::from_env()?, environment)?);
        interrupt::register(&cluster);
        Ok(Self { cluster })
    }

    fn configure_and_start(&self, settings: Vec<(String, String)>) -> Result<()> {
        let sockets = self.cluster.sockets().display();
        let own = Options::default()
            .set("listen_addresses", "")
            .set("port", PORT)
            .set("unix_socket_directories", sockets);
        self.cluster.configure(&[own.settings, settings].concat())?;
        self.start_again()
    }

    fn log_tail(&self) -> String {
        const LINES: usize = 20;
        let log = self.log().unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        interrupt::remove(&self.cluster);
    }
}

fn open(config: &Config) -> Result<Client> {
    config
        .connect(NoTls)
        .context("could not connect to the server")
}

/// Looks every few milliseconds whether something is so, for up to a minute.
///
/// # Errors
/// Those of the look; that it took too long.
pub fn wait_for(what: &str, mut done: impl FnMut() -> Result<bool>) -> Result<()> {
    const PATIENCE: Duration = Duration::from_secs(60);
    let start = Instant::now();
    while !done()? {
        ensure!(start.elapsed() < PATIENCE, "gave up waiting for {what}");
        std::thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(server: &Server) -> i64 {
        let mut client = server.connect().expect("connect");
        let row = client
            .query_one("SELECT count(*) FROM t", &[])
            .expect("count");
        row.get(0)
    }

    #[test]
    fn survives_a_crash_feeds_a_standby_and_leaves_nothing_behind() -> Result<()> {
        let server = Server::start(Options::default().set("work_mem", "5MB"))?;
        let (mut client, notices) = server.connect_collecting(SUPERUSER, "postgres")?;
        client.batch_execute("CREATE TABLE t AS SELECT generate_series(1, 10) AS id")?;
        client.batch_execute("DO $$ BEGIN RAISE WARNING 'careful' USING HINT = 'slow'; END $$")?;
        let notices = notices.take();
        assert_eq!(notices[0].to_string(), "WARNING:  careful\nHINT:  slow");
        assert_eq!(notices[0].code, "01000");
        assert_eq!(count(&server), 10);

        server.stop(Shutdown::Immediate)?;
        assert_eq!(server.postmaster(), None);
        server.start_again()?;
        assert_eq!(count(&server), 10);
        assert!(server.log()?.contains("automatic recovery in progress"));

        let standby = Server::standby_of(&server, Options::default())?;
        server
            .connect()?
            .batch_execute("INSERT INTO t VALUES (11)")?;
        standby.catch_up_with(&server)?;
        assert_eq!(count(&standby), 11);
        standby.promote()?;
        standby.connect()?.batch_execute("DELETE FROM t")?;

        let mut victim = server.connect()?;
        let pid = victim.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        server.kill_backend(pid)?;
        while victim.batch_execute("SELECT 1").is_ok() {}
        server.wait_until_ready()?;

        let psql = server
            .psql("postgres")
            .args(["-Atc", "SHOW work_mem"])
            .output()?;
        assert_eq!(String::from_utf8_lossy(&psql.stdout), "5MB\n");

        let data = server.data_directory();
        drop(server);
        assert!(!data.exists());
        Ok(())
    }
}
