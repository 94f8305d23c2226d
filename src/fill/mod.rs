//! The second step: filling the NULLs of a column.

mod batch;
mod context;
mod held;
pub mod helping;
mod horizon;
mod leaf;
pub mod leaf_table;
mod look;
mod outcome;
mod passes;
mod phases;
mod probe;
mod progress;
pub mod request;
pub mod run;
pub mod state;
pub mod statements;
mod sweep;
pub mod target;
pub mod value;
