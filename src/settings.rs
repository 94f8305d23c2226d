//! The settings, as they stand in `pg_settings`.

use std::ffi::{CStr, CString};
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::prelude::PostgresGucEnum;

/// What a run does while the WAL archiver is behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PostgresGucEnum)]
pub enum ArchiveLagAction {
    /// It waits.
    #[name = c"wait"]
    Wait,
    /// It says so, and goes on.
    #[name = c"warn"]
    Warn,
}

static LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(1_000);
static LOCK_RETRY_LIMIT: GucSetting<i32> = GucSetting::<i32>::new(30);
static ROW_LOCK_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(100);
static MAX_BATCH_TIME: GucSetting<i32> = GucSetting::<i32>::new(25);
static PROGRESS_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static HORIZON_PATIENCE: GucSetting<f64> = GucSetting::<f64>::new(2.0);
static PAUSE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_WAL_RATE: GucSetting<i32> = GucSetting::<i32>::new(0);
static MAX_REPLICA_LAG: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static IGNORED_STANDBYS: GucSetting<Option<CString>> =
    GucSetting::<Option<CString>>::new(Some(c""));
static MAX_SLOT_LAG: GucSetting<i32> = GucSetting::<i32>::new(1024);
static MAX_ARCHIVE_LAG: GucSetting<i32> = GucSetting::<i32>::new(1024);
static ARCHIVE_LAG_ACTION: GucSetting<ArchiveLagAction> =
    GucSetting::<ArchiveLagAction>::new(ArchiveLagAction::Wait);
static MAX_PG_WAL_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);
static HOLD_FOR_AUTOVACUUM: GucSetting<bool> = GucSetting::<bool>::new(false);
static HOLD_WHILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));

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
    GucRegistry::define_float_guc(
        c"safe_backfill.horizon_patience",
        c"Sets how long a backfill may wait in all until dead row versions can be removed, as a multiple of the time that it works.",
        c"It waits only where dead row versions become removable often enough for that. Larger values keep the table and its indexes smaller, for instance beside a standby that sends feedback.",
        &HORIZON_PATIENCE,
        0.0,
        1000.0,
        GucContext::Userset,
        GucFlags::default(),
    );
    define_throttle();
    define_wal_limits();
    define_holds();
    crate::pg::settings::reserve_prefix();
}

/// Defines a setting of which zero means that it is off.
fn define_limit(
    name: &'static CStr,
    short: &'static CStr,
    long: &'static CStr,
    setting: &'static GucSetting<i32>,
    most: i32,
    unit: GucFlags,
) {
    let context = GucContext::Userset;
    GucRegistry::define_int_guc(name, short, long, setting, 0, most, context, unit);
}

fn define_throttle() {
    define_limit(
        c"safe_backfill.pause",
        c"Sets the time between two batches.",
        c"No row and no table is locked meanwhile. Zero means none.",
        &PAUSE,
        86_400_000,
        GucFlags::UNIT_MS,
    );
    define_limit(
        c"safe_backfill.max_wal_rate",
        c"Sets how much WAL a backfill may write in a second.",
        c"Zero means no limit.",
        &MAX_WAL_RATE,
        i32::MAX,
        GucFlags::UNIT_KB,
    );
    define_limit(
        c"safe_backfill.max_replica_lag",
        c"Sets how far a streaming standby may be behind in replaying WAL.",
        c"No standby is given more WAL than it replays in half of this time, by the speed that is measured. Zero turns this off.",
        &MAX_REPLICA_LAG,
        86_400_000,
        GucFlags::UNIT_MS,
    );
}

fn define_wal_limits() {
    define_limit(
        c"safe_backfill.max_slot_lag",
        c"Sets how much WAL may be kept for a replication slot other than that of a streaming standby.",
        c"While there is more, because nobody reads the slot for instance, the backfill waits. Zero turns this off.",
        &MAX_SLOT_LAG,
        i32::MAX,
        GucFlags::UNIT_MB,
    );
    define_limit(
        c"safe_backfill.max_archive_lag",
        c"Sets how much WAL may wait to be archived.",
        c"An archiver whose last attempt has failed counts as behind however much it is. Zero turns this off.",
        &MAX_ARCHIVE_LAG,
        i32::MAX,
        GucFlags::UNIT_MB,
    );
    define_limit(
        c"safe_backfill.max_pg_wal_size",
        c"Sets how large the directory pg_wal may be.",
        c"While it is larger, the backfill waits. Zero turns this off.",
        &MAX_PG_WAL_SIZE,
        i32::MAX,
        GucFlags::UNIT_MB,
    );
}

fn define_holds() {
    GucRegistry::define_string_guc(
        c"safe_backfill.ignored_standbys",
        c"Sets standbys that may be behind for longer than safe_backfill.max_replica_lag.",
        c"A list of application names, such as those of standbys with recovery_min_apply_delay.",
        &IGNORED_STANDBYS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"safe_backfill.archive_lag_action",
        c"Sets whether a backfill waits, or warns, while more than safe_backfill.max_archive_lag is to be archived.",
        c"",
        &ARCHIVE_LAG_ACTION,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"safe_backfill.hold_for_autovacuum",
        c"Has a backfill wait while autovacuum works on the same table.",
        c"",
        &HOLD_FOR_AUTOVACUUM,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"safe_backfill.hold_while",
        c"Sets a query that returns a boolean; while it is true, the backfill waits.",
        c"It is run once in a second at most, in a read-only transaction, with the rights of the role that runs the backfill. One that takes longer than a second counts as true.",
        &HOLD_WHILE,
        GucContext::Userset,
        GucFlags::default(),
    );
}

/// The time between two batches.
pub fn pause() -> Duration {
    millis(PAUSE.get())
}

/// How many bytes of WAL may be written in a second, if that is limited.
pub fn max_wal_rate() -> Option<u64> {
    bytes(MAX_WAL_RATE.get(), 1 << 10)
}

/// How far standbys may be behind, if that is limited.
pub fn max_replica_lag() -> Option<Duration> {
    Some(millis(MAX_REPLICA_LAG.get())).filter(|lag| !lag.is_zero())
}

/// The application names of standbys that may be further behind.
pub fn ignored_standbys() -> Vec<String> {
    let names = text(&IGNORED_STANDBYS);
    names
        .split(',')
        .map(|name| name.trim().trim_matches('"').into())
        .collect()
}

/// How many bytes of WAL may be kept for a slot, if that is limited.
pub fn max_slot_lag() -> Option<u64> {
    bytes(MAX_SLOT_LAG.get(), 1 << 20)
}

/// How many bytes of WAL may wait to be archived, if that is limited.
pub fn max_archive_lag() -> Option<u64> {
    bytes(MAX_ARCHIVE_LAG.get(), 1 << 20)
}

/// What is done while there are more.
pub fn archive_lag_action() -> ArchiveLagAction {
    ARCHIVE_LAG_ACTION.get()
}

/// How many bytes `pg_wal` may have, if that is limited.
pub fn max_pg_wal_size() -> Option<u64> {
    bytes(MAX_PG_WAL_SIZE.get(), 1 << 20)
}

/// Whether autovacuum is left alone with the table.
pub fn hold_for_autovacuum() -> bool {
    HOLD_FOR_AUTOVACUUM.get()
}

/// The query that has the run wait while it is true.
pub fn hold_while() -> Option<String> {
    Some(text(&HOLD_WHILE)).filter(|query| !query.trim().is_empty())
}

fn text(setting: &'static GucSetting<Option<CString>>) -> String {
    setting
        .get()
        .map(|text| text.to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn bytes(value: i32, unit: u64) -> Option<u64> {
    (value > 0).then(|| u64::from(value.unsigned_abs()) * unit)
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

/// How long a run may wait for the horizon in all, as a multiple of the time that it works.
pub fn horizon_patience() -> f64 {
    HORIZON_PATIENCE.get()
}

/// The time between two progress messages, or `None` when they are off.
pub fn progress_interval() -> Option<Duration> {
    Some(millis(PROGRESS_INTERVAL.get())).filter(|interval| !interval.is_zero())
}

fn millis(value: i32) -> Duration {
    Duration::from_millis(value.unsigned_abs().into())
}
