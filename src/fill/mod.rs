//! The second step: filling the NULLs of a column.

mod absent;
mod batch;
mod context;
mod held;
pub mod helping;
mod horizon;
pub mod instant;
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
mod survey;
mod sweep;
pub mod target;
pub mod value;
