//! Add a column to a huge, busy table and make it NOT NULL without anyone noticing.

::pgrx::pg_module_magic!(name, version);

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
