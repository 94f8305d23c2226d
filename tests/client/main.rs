//! Tests of the extension as its users see it.

mod add_column;
mod changes;
mod ddl_locks;
mod deadlocks;
mod documentation;
mod failures;
mod figures;
mod horizon;
mod hostile;
mod inputs;
mod locks;
mod not_null;
mod postmaster;
mod privileges;
mod probe;
mod progress;
mod promises;
mod publications;
mod resume;
mod storms;
mod synchronous;
mod targets;
mod transactions;
mod trees;
mod values;
