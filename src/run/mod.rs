//! How a run goes on: its transactions, and what is heeded between them.

mod confirmation;
pub mod driver;
pub mod gate;
pub mod helpers;
pub mod job_worker;
pub mod membership;
pub mod supervision;
pub mod throttle;
