use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Result;

use crate::cluster::Cluster;

static CLUSTERS: Mutex<Vec<Arc<Cluster>>> = Mutex::new(Vec::new());
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Exit code of a program that was interrupted, as shells know it.
const EXIT_INTERRUPTED: i32 = 130;

/// Runs a program's body so that Ctrl-C and SIGTERM stop its servers and remove their directories, and so that
/// an error is printed with all its causes.
pub fn run(body: impl FnOnce() -> Result<()>) -> ExitCode {
    if let Err(error) = ctrlc::set_handler(interrupt) {
        eprintln!("error: could not handle Ctrl-C: {error}");
        return ExitCode::FAILURE;
    }
    let result = body();
    while INTERRUPTED.load(Ordering::SeqCst) {
        // The error is only that the server went away; the handler ends the process.
        std::thread::park();
    }
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Has the cluster removed if the program is interrupted.
pub(crate) fn register(cluster: &Arc<Cluster>) {
    clusters().push(Arc::clone(cluster));
}

/// Removes the cluster now.
pub(crate) fn remove(cluster: &Arc<Cluster>) {
    cluster.remove();
    clusters().retain(|registered| !Arc::ptr_eq(registered, cluster));
}

fn clusters() -> MutexGuard<'static, Vec<Arc<Cluster>>> {
    CLUSTERS.lock().unwrap_or_else(PoisonError::into_inner)
}

fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
    eprintln!("\ninterrupted: stopping the server and removing its files");
    for cluster in clusters().iter() {
        cluster.remove();
    }
    std::process::exit(EXIT_INTERRUPTED);
}
