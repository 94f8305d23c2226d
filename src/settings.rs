//! The settings, as they stand in `pg_settings`.

use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

static LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static LOCK_RETRY_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(30);
static ROW_LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(100);
static MAX_BATCH_TIME: GucSetting<i32> = GucSetting::<i32>::new(25);
static PROGRESS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(5_000);

/// Defines the settings; called once when the library is loaded.
pub fn define() {
    GucRegistry::define_int_guc(
        c"safe_backfill.lock_timeout",
        c"Sets how long a DDL statement may wait for the locks it needs.",
        c"Whoever comes later waits behind it, and no longer than this; then everyone is let through before it tries again.",
        &LOCK_TIMEOUT,
        2,
        600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"safe_backfill.lock_retry_limit",
        c"Sets how often a DDL statement that did not get its locks in time is tried again.",
        c"The pauses between the attempts double up to ten seconds. Zero means a single attempt.",
        &LOCK_RETRY_LIMIT,
        0,
        100_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"safe_backfill.row_lock_timeout",
        c"Sets how long a row that another transaction holds is waited for.",
        c"Kept below half of deadlock_timeout whatever is set here, so that the backfill gives way before PostgreSQL looks for a deadlock.",
        &ROW_LOCK_TIMEOUT,
        1,
        60_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"safe_backfill.max_batch_time",
        c"Sets how long one batch may hold its row locks.",
        c"A batch takes fewer rows than its batch size rather than run longer than this. Kept below a quarter of deadlock_timeout whatever is set here.",
        &MAX_BATCH_TIME,
        1,
        600_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"safe_backfill.progress_interval",
        c"Sets the time between two progress messages of a running backfill.",
        c"Zero turns the messages off.",
        &PROGRESS_INTERVAL,
        0,
        86_400_000,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    crate::pg::settings::reserve_prefix();
}

/// How long a DDL statement may wait for all the locks it needs.
pub fn lock_timeout() -> Duration {
    millis(LOCK_TIMEOUT.get())
}

/// How often a DDL statement is tried again.
pub fn lock_retry_limit() -> u32 {
    LOCK_RETRY_LIMIT.get().unsigned_abs()
}

/// How long one row lock is waited for: never so long that the other transaction looks for a deadlock.
pub fn row_lock_timeout() -> Duration {
    millis(ROW_LOCK_TIMEOUT.get()).min(crate::pg::settings::deadlock_timeout() / 2)
}

/// How long one batch may hold its row locks.
pub fn max_batch_time() -> Duration {
    millis(MAX_BATCH_TIME.get()).min(crate::pg::settings::deadlock_timeout() / 4)
}

/// The time between two progress messages, or `None` when they are off.
pub fn progress_interval() -> Option<Duration> {
    Some(millis(PROGRESS_INTERVAL.get())).filter(|interval| !interval.is_zero())
}

fn millis(value: i32) -> Duration {
    Duration::from_millis(value.unsigned_abs().into())
}
