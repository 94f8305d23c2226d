//! Reports that keep a snapshot beside a run.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Result, anyhow};
use postgres::{Client, IsolationLevel};

/// Reports in a thread of their own.
#[derive(Debug)]
pub struct Reports {
    stop: Sender<()>,
    thread: JoinHandle<Result<()>>,
}

impl Reports {
    /// Has a report begin after `delay` that reads `table` and keeps its snapshot for `time`, and if `repeated` another one
    /// whenever one ends.
    #[must_use]
    pub fn start(
        mut client: Client,
        table: &str,
        delay: Duration,
        time: Duration,
        repeated: bool,
    ) -> Self {
        let query = format!("SELECT count(*) FROM {table}");
        let (stop, stopped) = channel();
        let thread = std::thread::spawn(move || {
            let is_stopped = |time| stopped.recv_timeout(time) != Err(RecvTimeoutError::Timeout);
            if is_stopped(delay) {
                return Ok(());
            }
            loop {
                let builder = client.build_transaction();
                let mut report = builder
                    .isolation_level(IsolationLevel::RepeatableRead)
                    .start()?;
                report.query_one(&query, &[])?;
                let ends = is_stopped(time);
                report.commit()?;
                if ends || !repeated {
                    return Ok(());
                }
            }
        });
        Self { stop, thread }
    }

    /// Ends the report that is under way, and all others.
    ///
    /// # Errors
    /// If a report failed.
    pub fn stop(self) -> Result<()> {
        // It may have ended by itself.
        let _ = self.stop.send(());
        let ended = self.thread.join();
        ended.map_err(|_| anyhow!("the thread of the reports panicked"))?
    }
}
