//! What every batch, and every attempt of a DDL statement, passes before it begins.

use std::time::{Duration, Instant};

use crate::error::Error;
use crate::pg::{interrupts, postmaster, settings, usage};
use crate::run::driver::Driver;
use crate::run::supervision::Order;

/// Orders are asked for once in this time. A batch takes longer, as a rule.
const ORDER_INTERVAL: Duration = Duration::from_millis(10);
/// How often a run that is paused asks for its orders.
const PAUSE_POLL: Duration = Duration::from_millis(50);
/// A rest is cut into pieces of at most this, between which orders and settings are heeded.
const LONGEST_NAP: Duration = Duration::from_millis(50);

/// Ends the run if it was cancelled, its backend terminated or the server's postmaster is gone; reads the configuration
/// again if that was asked for; waits while the run is paused. Call it between transactions.
///
/// # Errors
/// Those of the run's supervision when it is cancelled; PostgreSQL's 57014 and 57P01.
pub fn pass(driver: &Driver) -> Result<(), Error> {
    heed();
    if !driver.is_order_due(ORDER_INTERVAL) {
        return Ok(());
    }
    driver.note_again()?;
    match driver.order()? {
        Some(Order::Pause) => pause(driver),
        Some(Order::Go) | None => Ok(()),
    }
}

/// What can be heeded even where no order can be asked for.
pub(super) fn heed() {
    postmaster::require_alive();
    interrupts::check();
    settings::reload_if_asked();
}

/// Rests for `time`, passing the gate at least every 50 ms.
///
/// # Errors
/// Those of [`pass`].
pub fn rest(driver: &Driver, time: Duration) -> Result<(), Error> {
    let began = Instant::now();
    loop {
        pass(driver)?;
        let left = time.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Ok(());
        }
        usage::sleep(left.min(LONGEST_NAP));
    }
}

/// Waits for the order to go on. While nobody can be asked, the last order stands.
fn pause(driver: &Driver) -> Result<(), Error> {
    if let Some(supervision) = driver.supervision() {
        supervision.say_paused();
    }
    driver.pause(|| {
        loop {
            usage::sleep(PAUSE_POLL);
            heed();
            if driver.order()? == Some(Order::Go) {
                return Ok(());
            }
        }
    })
}
