//! Add a column to a huge, busy table and make it NOT NULL without anyone noticing.
//!
//! `sql.rs` has everything that SQL can call. `add_column.rs`, `fill/` and `not_null/` are the three steps; crate
//! `planner` holds the idea that makes the second one fast.

mod add_column;
mod background;
mod catalog;
mod ddl;
mod error;
mod fill;
#[cfg(any(test, feature = "pg_test"))]
mod in_transaction;
mod job;
mod messages;
mod not_null;
#[allow(unsafe_code)]
mod pg;
mod plan;
mod run;
mod settings;
mod sql;
mod worker;

// The crate's own, as pgrx 0.18.1 would put its version in the place of the name.
const VERSION: &std::ffi::CStr = match std::ffi::CStr::from_bytes_with_nul(
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes(),
) {
    Ok(version) => version,
    Err(_) => c"",
};

::pgrx::pg_module_magic!(name, version = VERSION);

::pgrx::extension_sql_file!("../sql/job.sql", name = "job", bootstrap);
::pgrx::extension_sql_file!("../sql/comments.sql", name = "comments", finalize);

/// Runs once in each backend that loads the library.
#[::pgrx::pg_guard]
#[allow(non_snake_case, unsafe_code)]
pub extern "C-unwind" fn _PG_init() {
    pg::backtrace::never_capture();
    pg::tid_scan::install();
    settings::define();
    worker::register_launcher();
}

/// What `cargo pgrx test` needs at the root of the crate.
#[cfg(test)]
pub mod pg_test {
    /// Called once before the server of the tests starts.
    pub fn setup(_options: Vec<&str>) {}

    /// Extra `postgresql.conf` lines for the server of the tests.
    #[must_use]
    pub fn postgresql_conf_options() -> Vec<&'static str> {
        vec![]
    }
}
