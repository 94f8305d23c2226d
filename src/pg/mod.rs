//! Everything that touches the server's memory: the only `unsafe` code of the extension.
//!
//! Each file wraps one noun of PostgreSQL's C interface in functions that are safe to call from a backend's main
//! thread inside a transaction. A PostgreSQL ERROR raised below unwinds through the callers as a Rust panic that
//! pgrx turns back into that ERROR at the SQL boundary, after destructors have run.

pub mod backtrace;
pub mod btree;
pub mod call;
pub mod check;
pub mod databases;
pub mod deadline;
pub mod failure;
pub mod heap;
mod heap_page;
pub mod heap_sample;
pub mod horizon;
pub mod interrupts;
pub mod lock;
pub mod message;
pub mod missing;
pub mod name;
pub mod parameter;
pub mod parse;
pub mod postmaster;
pub mod publication;
pub mod ring;
pub mod role;
pub mod segment;
pub mod server;
pub mod settings;
mod snapshot;
pub mod spi;
pub mod standby;
pub mod tid;
pub mod tid_scan;
pub mod transaction;
pub mod tx;
pub mod usage;
pub mod value;
pub mod worker;
