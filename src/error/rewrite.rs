//! Why a column cannot be added without rewriting the table.

use std::fmt;

/// Why a column cannot be added without rewriting the table. Each reason has the name of the type.
#[derive(Debug)]
pub enum RewriteReason {
    /// A domain with constraints, which PostgreSQL would check for every row.
    DomainConstraints(String),
    /// A type whose default differs from row to row.
    VolatileDefault(String),
    /// `serial` or a variant of it.
    Serial(String),
}

impl fmt::Display for RewriteReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RewriteReason::DomainConstraints(name) => write!(f, "Domain {name} has constraints."),
            RewriteReason::VolatileDefault(name) => {
                write!(f, "Type {name} has a volatile default.")
            }
            RewriteReason::Serial(name) => {
                write!(f, "Type {name} gives every row a different value.")
            }
        }
    }
}
