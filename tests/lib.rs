//! Client-level tests.
