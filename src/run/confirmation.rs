//! The wait for synchronous standbys, after a commit that let go of all locks.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::messages::{self, Reason, Wait};
use crate::pg::standby::Unconfirmed;
use crate::pg::{interrupts, usage};
use crate::run::driver::Driver;
use crate::run::gate;

/// A nearby standby usually answers within this time; until then it is polled in short naps.
const SOON: Duration = Duration::from_millis(3);
const SHORT_NAP: Duration = Duration::from_micros(50);
const LONG_NAP: Duration = Duration::from_millis(5);
/// Orders are asked for once in this time.
const INTERVAL: Duration = Duration::from_millis(100);
/// A wait that takes longer is told.
const WORTH_TELLING: Duration = Duration::from_secs(1);

/// Waits until the commit is confirmed. Heeds what the gate heeds, but for a pause, which comes after it.
///
/// # Errors
/// Those of the run's supervision when it is cancelled; PostgreSQL's 57014 and 57P01. What was committed stays, and a
/// WARNING says so.
pub fn wait(driver: &Driver, commit: Unconfirmed) -> Result<(), Error> {
    let began = Instant::now();
    let mut asked_at = began;
    let mut told = false;
    while !commit.is_confirmed() {
        if interrupts::are_pending() {
            messages::warn_of_unconfirmed_commit();
        }
        gate::heed();
        if asked_at.elapsed() >= INTERVAL {
            asked_at = Instant::now();
            attend(driver, &mut told, began)
                .inspect_err(|_| messages::warn_of_unconfirmed_commit())?;
        }
        match began.elapsed() < SOON {
            true => std::thread::sleep(SHORT_NAP),
            false => usage::sleep_for_standby(LONG_NAP),
        }
    }
    driver.has_waited(|reason| reason == Reason::Confirmation)
}

/// Takes orders, and lets others see the wait once it has lasted for some time.
fn attend(driver: &Driver, told: &mut bool, began: Instant) -> Result<(), Error> {
    driver.note_again()?;
    driver.order()?;
    if !*told && began.elapsed() >= WORTH_TELLING {
        *told = true;
        driver.waits_for(&Wait::confirmation())?;
    }
    Ok(())
}
