//! PostgreSQL's own settings, read and set for the time of one transaction.

use std::ffi::{CStr, CString};
use std::marker::PhantomData;
use std::time::Duration;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::tx::Tx;

/// Makes `SET safe_backfill.typo = …` an error instead of a new placeholder.
pub fn reserve_prefix() {
    // SAFETY: the name is a NUL-terminated constant.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"safe_backfill".as_ptr()) };
}

/// The server's `deadlock_timeout`, as this session sees it.
pub fn deadlock_timeout() -> Duration {
    // SAFETY: an integer that only this thread changes.
    let millis = unsafe { pg_sys::DeadlockTimeout };
    Duration::from_millis(millis.unsigned_abs().into())
}

impl Tx {
    /// Sets `lock_timeout` until the end of this transaction; never 0, which would mean waiting for ever.
    pub fn set_lock_timeout(&self, limit: Duration) {
        set_local_time(c"lock_timeout", limit);
    }

    /// Sets `deadlock_timeout` until the end of this transaction, which only a superuser could do with SET.
    ///
    /// After waiting for this long, a backend looks for deadlocks, and asks autovacuum to release a table. With a short
    /// time, this backend does both before others do.
    pub fn set_deadlock_timeout(&self, limit: Duration) {
        set_local_time(c"deadlock_timeout", limit);
    }
}

impl Tx {
    /// Sets a setting for this session, if that is possible.
    pub fn try_set(&self, name: &str, value: &str) {
        const IMPOSSIBLE: &[PgSqlErrorCode] = &[
            PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE,
            PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            PgSqlErrorCode::ERRCODE_CANT_CHANGE_RUNTIME_PARAM,
            PgSqlErrorCode::ERRCODE_INVALID_NAME,
        ];
        // A setting that cannot be set may not matter to the job. If it does, that leads to an error later.
        drop(self.attempt_except(IMPOSSIBLE, || {
            drop(self.execute(
                "SELECT pg_catalog.set_config($1, $2, false)",
                &[&name, &value],
            ));
        }));
    }
}

impl Tx {
    /// Lets nothing be written until the end of this transaction.
    pub fn set_read_only(&self) {
        set(
            c"transaction_read_only",
            c"on",
            pg_sys::GucAction::GUC_ACTION_LOCAL,
        );
    }
}

/// Settings that no library has defined, such as `app.tenant`, and that this session has been given.
///
/// `pg_settings` does not show them.
pub fn placeholders(_tx: &Tx) -> Vec<(String, String)> {
    const SESSION: [pg_sys::GucSource::Type; 2] = [
        pg_sys::GucSource::PGC_S_CLIENT,
        pg_sys::GucSource::PGC_S_SESSION,
    ];
    let mut found = vec![];
    for &setting in defined() {
        // SAFETY: PostgreSQL's settings are changed by this thread alone. A name is NUL-terminated, and so is the value of
        // one that exists.
        unsafe {
            let is_placeholder = (*setting).flags & pg_sys::GUC_CUSTOM_PLACEHOLDER as i32 != 0;
            if !is_placeholder || !SESSION.contains(&(*setting).source) {
                continue;
            }
            let value = pg_sys::GetConfigOption((*setting).name, true, false);
            if !value.is_null() {
                let text = |c| CStr::from_ptr(c).to_string_lossy().into_owned();
                found.push((text((*setting).name), text(value)));
            }
        }
    }
    found
}

/// All settings that there are.
fn defined<'tx>() -> &'tx [*mut pg_sys::config_generic] {
    let mut count = 0;
    // SAFETY: an array of so many pointers, which PostgreSQL keeps, or has made in the transaction's memory.
    unsafe {
        #[cfg(feature = "pg15")]
        let first = {
            count += pg_sys::GetNumConfigOptions();
            pg_sys::get_guc_variables()
        };
        #[cfg(not(feature = "pg15"))]
        let first = pg_sys::get_guc_variables(&raw mut count);
        std::slice::from_raw_parts(first, count.unsigned_abs() as usize)
    }
}

/// Sets no limit on waits for locks until the end of this transaction, whatever `lock_timeout` the session has.
pub fn wait_for_locks_without_limit(_tx: &Tx) {
    // SAFETY: an integer that only this thread changes.
    if unsafe { pg_sys::LockTimeout } != 0 {
        set(c"lock_timeout", c"0", pg_sys::GucAction::GUC_ACTION_LOCAL);
    }
}

/// Has this transaction's commit wait for the local disk, and for no standby.
pub fn set_local_commit_to_local(_tx: &Tx) {
    set(
        c"synchronous_commit",
        c"local",
        pg_sys::GucAction::GUC_ACTION_LOCAL,
    );
}

fn set_local_time(name: &CStr, limit: Duration) {
    let millis = limit.as_millis().clamp(1, i32::MAX as u128);
    let value = CString::new(format!("{millis}ms")).unwrap_or_default();
    set(name, &value, pg_sys::GucAction::GUC_ACTION_LOCAL);
}

/// Settings that hold until this is dropped.
pub struct Temporarily<'tx> {
    nest_level: i32,
    _tx: PhantomData<&'tx Tx>,
}

impl<'tx> Temporarily<'tx> {
    /// Puts only `pg_catalog` on the search path, and temporary objects last.
    pub fn catalog_only(tx: &'tx Tx) -> Self {
        Self::set(tx, &[(c"search_path", c"pg_catalog, pg_temp")])
    }

    /// Enables TID scans, without which PostgreSQL 18 makes no path for one. `None` if they are enabled already.
    pub fn tid_scans(tx: &'tx Tx) -> Option<Self> {
        // SAFETY: a setting of this backend.
        let enabled = unsafe { pg_sys::enable_tidscan };
        (!enabled).then(|| Self::set(tx, &[(c"enable_tidscan", c"on")]))
    }

    /// Has values written in a fixed format, whatever the session's settings are, as `postgres_fdw` does.
    pub fn portable_output(tx: &'tx Tx) -> Self {
        Self::set(
            tx,
            &[
                (c"datestyle", c"ISO, YMD"),
                (c"intervalstyle", c"postgres"),
                (c"timezone", c"UTC"),
                (c"bytea_output", c"hex"),
                (c"extra_float_digits", c"3"),
            ],
        )
    }

    /// Has an unquoted NULL in an array literal read as a null, as arrays are written.
    pub fn array_nulls(tx: &'tx Tx) -> Self {
        Self::set(tx, &[(c"array_nulls", c"on")])
    }

    fn set(_tx: &'tx Tx, settings: &[(&CStr, &CStr)]) -> Self {
        // SAFETY: balanced by `drop`, or by the end of the (sub)transaction after an error.
        let nest_level = unsafe { pg_sys::NewGUCNestLevel() };
        for (name, value) in settings {
            set(name, value, pg_sys::GucAction::GUC_ACTION_SAVE);
        }
        Temporarily {
            nest_level,
            _tx: PhantomData,
        }
    }
}

impl Drop for Temporarily<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: ends the level that `set` began.
            unsafe { pg_sys::AtEOXact_GUC(false, self.nest_level) };
        }
    }
}

fn set(name: &CStr, value: &CStr, action: pg_sys::GucAction::Type) {
    // SAFETY: both strings are NUL-terminated and outlive the call, which copies them.
    unsafe {
        pg_sys::set_config_option(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_SUSET,
            pg_sys::GucSource::PGC_S_SESSION,
            action,
            true,
            0,
            false,
        );
    }
}

/// Reads the configuration files again if `pg_reload_conf()` asked for it.
///
/// By itself a backend does this only between two statements, and a CALL that runs for hours is one statement.
pub fn reload_if_asked() {
    // SAFETY: a flag set by the SIGHUP handler and cleared by this thread alone, as PostgresMain does; autovacuum
    // calls ProcessConfigFile within transactions in the same way.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// How many pages shared buffers have room for.
pub fn shared_buffers() -> u32 {
    // SAFETY: an integer that is set when the server starts.
    unsafe { pg_sys::NBuffers }.unsigned_abs()
}
