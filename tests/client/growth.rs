//! How much a table and its indexes grow while they are filled.
