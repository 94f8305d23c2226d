//! How a run goes on: its transactions, what is heeded between them, and what it tells its user meanwhile.

pub mod driver;
pub mod gate;
pub mod progress;
