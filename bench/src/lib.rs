//! Ways to fill a column, measured side by side on identical copies of a table.
//!
//! The program `bench` compares strategies; the program `demo` shows a risky and a safe migration under live
//! traffic. Both bring their own PostgreSQL server and remove it afterwards.

pub mod contents;
pub mod copy;
pub mod figures;
pub mod latency;
pub mod memory;
pub mod report;
pub mod strategy;
pub mod table;
pub mod traffic;
