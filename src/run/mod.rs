//! How a run goes on: its transactions, and what is heeded between them.

pub mod driver;
pub mod gate;
pub mod helpers;
pub mod membership;
pub mod supervision;
pub mod throttle;
