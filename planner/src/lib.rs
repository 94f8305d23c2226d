//! What a backfill decides, apart from the server it does it on: which rows of a page to take now, how many with one
//! statement, when to yield to others, when to give up, which step comes next.
//!
//! Nothing here waits, reads a clock or knows PostgreSQL's libraries, so that all of it is tested in seconds.

#![forbid(unsafe_code)]

pub mod backoff;
pub mod claims;
pub mod eta;
pub mod extent;
pub mod flight;
pub mod forecast;
pub mod not_null_step;
pub mod pace;
pub mod page;
pub mod patience;
pub mod phase;
pub mod recycling;
pub mod rest;
pub mod sampling;
pub mod standby;
pub mod team;
pub mod window;
pub mod yielding;
