//! Tests of the extension as its users see it.

mod promises;
mod resume;
