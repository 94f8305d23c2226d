//! How much memory a backend takes for itself.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};

const INTERVAL: Duration = Duration::from_millis(20);

/// Samples the private memory of a process, which leaves out the server's shared buffers.
#[derive(Debug)]
pub struct Sampler {
    done: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
    start: u64,
}

impl Sampler {
    /// Starts to sample a process.
    pub fn start(pid: i32) -> Result<Self> {
        let start = private_kilobytes(pid)
            .with_context(|| format!("the memory of process {pid} can't be read on this system"))?;
        let done = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&done);
        let thread = std::thread::spawn(move || {
            let mut peak = start;
            while !stop.load(Ordering::Relaxed) {
                peak = peak.max(private_kilobytes(pid).unwrap_or_default());
                std::thread::sleep(INTERVAL);
            }
            peak
        });
        Ok(Self {
            done,
            thread,
            start,
        })
    }

    /// Stops and returns by how many kilobytes the process was larger at its peak than at the start.
    pub fn stop(self) -> Result<u64> {
        self.done.store(true, Ordering::Relaxed);
        let peak = self
            .thread
            .join()
            .map_err(|_| anyhow!("the memory sampler failed"))?;
        Ok(peak - self.start)
    }
}

fn private_kilobytes(pid: i32) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().strip_suffix(" kB")?.parse().ok()
}
