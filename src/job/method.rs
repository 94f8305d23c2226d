//! How rows get their value.

use std::fmt;

/// How rows get their value, as `method` of a CALL says and a job stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// All of them by UPDATEs.
    Batch,
    /// Those that lack the column by a change of the catalogs, and the others by UPDATEs.
    Instant,
}

impl Method {
    /// The method of that name.
    pub fn named(name: &str) -> Option<Self> {
        [Method::Batch, Method::Instant]
            .into_iter()
            .find(|method| method.name() == name)
    }

    /// Its name in SQL.
    pub fn name(self) -> &'static str {
        match self {
            Method::Batch => "batch",
            Method::Instant => "instant",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
