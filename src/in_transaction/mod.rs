//! Tier 2 of the tests: inside a server, each in a transaction that is rolled back.

mod expressions;
mod heap;
mod instant;
mod targets;
mod transactions;
mod values;
