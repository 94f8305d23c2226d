//! A private PostgreSQL server for tests, benchmarks and demonstrations.
//!
//! [`Server::start`] makes a fresh cluster in a directory of its own, starts it on a Unix socket only, and
//! removes everything when it is dropped. Three environment variables say where it comes from:
//!
//! | variable | meaning |
//! |---|---|
//! | `PG_CONFIG` | the `pg_config` of the PostgreSQL to run; otherwise the one on the path |
//! | `SAFE_BACKFILL_RUN_AS` | the user to run the server as, because PostgreSQL refuses to run as root |
//! | `SAFE_BACKFILL_STATE` | a directory that user can write, for data directories; otherwise the temporary directory |
//!
//! ```no_run
//! use testenv::{Options, Server};
//!
//! fn main() -> anyhow::Result<()> {
//!     let server = Server::start(Options::default().set("work_mem", "64MB"))?;
//!     let row = server.connect()?.query_one("SHOW work_mem", &[])?;
//!     assert_eq!(row.get::<_, &str>(0), "64MB");
//!     Ok(())
//! }
//! ```

mod cluster;
mod installation;
mod interrupt;
mod notice;
mod server;

pub use installation::Installation;
pub use interrupt::run;
pub use notice::{Notice, Notices};
pub use server::{Options, Server, Shutdown, wait_for};

/// The superuser of every private server.
pub const SUPERUSER: &str = "postgres";
