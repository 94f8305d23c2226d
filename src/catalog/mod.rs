//! What PostgreSQL's catalogs and views say: each question is asked in one place.

pub mod attribute;
pub mod backlog;
pub mod dependents;
pub mod holders;
pub mod login;
pub mod relation;
pub mod session_settings;
pub mod tree;
