//! Live traffic of an application, by pgbench.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use postgres::Client;
use testenv::Server;

use crate::latency::{Latency, Sample};
use crate::table::{APP_AMOUNT, APP_VALUE, COLUMN, Table};

const POLL: Duration = Duration::from_millis(100);
/// Longer than any run.
const A_DAY: &str = "86400";

/// What traffic there is.
#[derive(Debug, Clone)]
pub struct Traffic {
    /// Transactions per second.
    pub tps: u32,
    /// Connections.
    pub clients: u32,
    /// Whether the application knows the new column and writes it.
    pub writes_column: bool,
}

/// What the application has written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Rows inserted.
    pub rows: i64,
    /// What was added to the amounts.
    pub amount: i64,
}

/// One kind of transaction, and what each of them adds to the tally.
struct Script {
    weight: u32,
    sql: String,
    adds: Tally,
}

/// Running traffic. Dropping it ends it without a result.
pub struct Load {
    pgbench: Child,
    directory: PathBuf,
    scripts: Vec<Tally>,
    clients: u32,
    monitor: Client,
}

impl Traffic {
    /// Starts traffic on a table and returns when all clients are connected.
    pub fn start(&self, server: &Server, database: &str, table: &Table) -> Result<Load> {
        let directory = server.scratch_directory()?;
        let scripts = self.scripts(&table.name);
        let mut command = server.pgbench(database);
        command
            .args([
                "--protocol=prepared",
                "--jobs=1",
                "--random-seed=1",
                "-T",
                A_DAY,
            ])
            .arg(format!("--client={}", self.clients))
            .arg(format!("--rate={}", self.tps))
            .arg(format!("--define=rows={}", table.rows));
        add_scripts(&mut command, &scripts, &directory)?;
        let pgbench = command
            .arg("--log")
            .arg("--log-prefix")
            .arg(directory.join("transactions"))
            .stdout(Stdio::null())
            .stderr(File::create(directory.join("stderr"))?)
            .spawn()
            .context("could not run pgbench")?;
        let mut load = Load {
            pgbench,
            directory,
            scripts: scripts.iter().map(|script| script.adds).collect(),
            clients: self.clients,
            monitor: server.connect_as(testenv::SUPERUSER, database)?,
        };
        load.wait_until_connected()?;
        Ok(load)
    }

    fn scripts(&self, table: &str) -> Vec<Script> {
        let by_id = |weight, statement: String, amount| Script {
            weight,
            sql: format!("\\set id random(1, :rows)\n{statement} WHERE id = :id;\n"),
            adds: Tally { rows: 0, amount },
        };
        let claims = if self.writes_column { 5 } else { 0 };
        let mut scripts = vec![
            by_id(70, format!("SELECT name, email, amount FROM {table}"), 0),
            by_id(
                20 - claims,
                format!("UPDATE {table} SET amount = amount + 1"),
                1,
            ),
            Script {
                weight: 10,
                sql: format!(
                    "INSERT INTO {table} (name, email, token, created_at, amount, note)
                     VALUES ('new user', 'new@example.com', gen_random_uuid(), now(), 0, '');\n"
                ),
                adds: Tally { rows: 1, amount: 0 },
            },
        ];
        if self.writes_column {
            let set = format!("{COLUMN} = '{APP_VALUE}', amount = amount + {APP_AMOUNT}");
            scripts.push(by_id(
                claims,
                format!("UPDATE {table} SET {set}"),
                APP_AMOUNT,
            ));
        }
        scripts
    }
}

fn add_scripts(command: &mut Command, scripts: &[Script], directory: &Path) -> Result<()> {
    for (number, script) in scripts.iter().enumerate() {
        let path = directory.join(format!("{number}.sql"));
        fs::write(&path, &script.sql)?;
        command.arg(format!("--file={}@{}", path.display(), script.weight));
    }
    Ok(())
}

impl Load {
    /// Waits until the transactions that piled up in a period are done, then stops.
    pub fn settle_and_stop(self, from: SystemTime, to: SystemTime) -> Result<Log> {
        // pgbench catches up several times faster than it falls behind.
        let backlog = to.duration_since(from).unwrap_or_default() / 4;
        std::thread::sleep(Duration::from_secs(1) + backlog);
        self.stop()
    }

    /// Ends the traffic when every transaction that was sent has been answered, so that the log is exact.
    fn stop(mut self) -> Result<Log> {
        // pgbench, told to end, throws its log away; but it writes it when it loses its connections. It is held
        // until all are idle, so that none is lost in the middle of a transaction.
        self.signal(Signal::SIGSTOP)?;
        loop {
            std::thread::sleep(POLL);
            if self.sessions("state <> 'idle'")? == 0 {
                break;
            }
        }
        let connected = self.sessions("pg_terminate_backend(pid)")?;
        self.signal(Signal::SIGCONT)?;
        self.pgbench.wait()?;
        let mut log = Log::read(&self.directory, &self.scripts)?;
        log.lost_clients = u64::from(self.clients).saturating_sub(connected);
        Ok(log)
    }

    fn wait_until_connected(&mut self) -> Result<()> {
        while self.sessions("true")? < u64::from(self.clients) {
            if let Some(status) = self.pgbench.try_wait()? {
                bail!("pgbench ended early ({status}): {}", self.stderr());
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }

    /// How many sessions of pgbench fulfil a condition.
    fn sessions(&mut self, condition: &str) -> Result<u64> {
        let row = self.monitor.query_one(
            &format!(
                "SELECT count(*) FILTER (WHERE {condition}) FROM pg_stat_activity
                 WHERE datname = current_database() AND application_name = 'pgbench'"
            ),
            &[],
        )?;
        Ok(row.get::<_, i64>(0).try_into()?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_raw(self.pgbench.id().try_into()?);
        kill(pid, signal).with_context(|| format!("pgbench ended early: {}", self.stderr()))
    }

    fn stderr(&self) -> String {
        fs::read_to_string(self.directory.join("stderr")).unwrap_or_default()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.pgbench.kill();
        let _ = self.pgbench.wait();
    }
}

/// Every transaction of a load.
#[derive(Debug, Default)]
pub struct Log {
    transactions: Vec<Transaction>,
    tally: Tally,
    lost_clients: u64,
}

#[derive(Debug)]
struct Transaction {
    due: SystemTime,
    sample: Sample,
}

impl Log {
    /// What was written.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.tally
    }

    /// Sums up the transactions that were due in a period.
    #[must_use]
    pub fn latency(&self, from: SystemTime, to: SystemTime) -> Latency {
        let samples: Vec<_> = self
            .transactions
            .iter()
            .filter(|transaction| (from..to).contains(&transaction.due))
            .map(|transaction| transaction.sample)
            .collect();
        Latency::of(&samples)
    }

    /// For each stretch of a period: its start, in seconds from `zero`, and the longest that a transaction that was due
    /// in it took, in milliseconds.
    #[must_use]
    pub fn longest(
        &self,
        zero: SystemTime,
        (from, to): (SystemTime, SystemTime),
        stretch: Duration,
    ) -> Vec<(f64, f64)> {
        let mut longest = BTreeMap::new();
        for transaction in &self.transactions {
            let (Ok(since), Some(latency)) = (
                transaction.due.duration_since(from),
                transaction.sample.latency,
            ) else {
                continue;
            };
            if transaction.due < to {
                let number = since.as_nanos() / stretch.as_nanos().max(1);
                let entry: &mut Duration = longest.entry(number).or_default();
                *entry = latency.max(*entry);
            }
        }
        let start = -zero.duration_since(from).unwrap_or_default().as_secs_f64();
        longest
            .into_iter()
            .map(|(number, latency)| {
                let at = start + number as f64 * stretch.as_secs_f64();
                (at, latency.as_secs_f64() * 1000.0)
            })
            .collect()
    }

    /// Fails if a client gave up because of an error.
    pub fn ensure_complete(&self) -> Result<()> {
        ensure!(
            self.lost_clients == 0,
            "{} clients of the application gave up after an error",
            self.lost_clients
        );
        Ok(())
    }

    fn read(directory: &Path, scripts: &[Tally]) -> Result<Self> {
        let mut log = Self::default();
        for entry in fs::read_dir(directory)? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str());
            if name.is_some_and(|name| name.starts_with("transactions")) {
                for line in fs::read_to_string(&path)?.lines() {
                    log.add(line, scripts)
                        .with_context(|| format!("not a line of a pgbench log: \"{line}\""))?;
                }
            }
        }
        Ok(log)
    }

    /// Adds a line: client, number, latency, script, seconds and microseconds of its end, lag.
    fn add(&mut self, line: &str, scripts: &[Tally]) -> Result<()> {
        let fields: Vec<_> = line.split(' ').collect();
        let [_, _, latency, script, seconds, micros, lag, ..] = fields[..] else {
            bail!("too few fields");
        };
        let lag = Duration::from_micros(lag.parse()?);
        let end = Duration::from_secs(seconds.parse()?) + Duration::from_micros(micros.parse()?);
        // A failed transaction has a word in place of a number.
        let latency = latency.parse().ok().map(Duration::from_micros);
        if latency.is_some() {
            let adds = scripts
                .get(script.parse::<usize>()?)
                .context("unknown script")?;
            self.tally.rows += adds.rows;
            self.tally.amount += adds.amount;
        }
        self.transactions.push(Transaction {
            due: SystemTime::UNIX_EPOCH + end - latency.unwrap_or(lag),
            sample: Sample { latency, lag },
        });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_and_tallied() -> Result<()> {
        let scripts = [Tally::default(), Tally { rows: 1, amount: 5 }];
        let mut log = Log::default();
        log.add("0 1 2000 1 100 500000 1500", &scripts)?;
        log.add("3 2 failed 1 200 0 10", &scripts)?;
        assert_eq!(log.tally(), Tally { rows: 1, amount: 5 });
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let latency = log.latency(at(100), at(101));
        assert_eq!((latency.transactions, latency.failed), (1, 0));
        assert_eq!(latency.max, 2.0);
        assert_eq!(latency.longest_statement, 0.5);
        assert_eq!(log.latency(at(0), at(300)).failed, 1);
        let second = Duration::from_secs(1);
        assert_eq!(
            log.longest(at(100), (at(97), at(300)), second),
            [(0.0, 2.0)]
        );
        assert_eq!(log.longest(at(100), (at(97), at(98)), second), []);
        assert!(log.add("nonsense", &scripts).is_err());
        Ok(())
    }
}
