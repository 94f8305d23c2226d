//! Tests of the extension as its users see it.

mod changes;
mod deadlocks;
mod horizon;
mod inputs;
mod locks;
mod privileges;
mod progress;
mod promises;
mod resume;
mod storms;
mod targets;
mod transactions;
mod trees;
mod values;
