//! The second step: filling the NULLs of a column.

mod batch;
mod held;
mod horizon;
mod leaf;
mod leaf_table;
mod look;
pub mod outcome;
mod probe;
pub mod request;
pub mod run;
mod statements;
mod sweep;
pub mod target;
pub mod value;
