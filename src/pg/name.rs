//! Names of relations, from PostgreSQL's caches.

use std::ffi::{CStr, c_char};

use pgrx::pg_sys;

use crate::pg::spi::quote;
use crate::pg::tx::Tx;

/// The relation's name as SQL writes it, with its schema; `None` if it does not exist.
pub fn of_relation(_tx: &Tx, oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: any OID will do; each function returns null, or a NUL-terminated string of our own.
    let (schema, name) = unsafe {
        let schema = pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid));
        (text(schema)?, text(pg_sys::get_rel_name(oid))?)
    };
    Some(format!("{}.{}", quote(&schema), quote(&name)))
}

/// The name of a table access method; `None` if it does not exist.
pub fn of_access_method(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: any OID will do; the result is null or a NUL-terminated string of our own.
    unsafe { text(pg_sys::get_am_name(oid)) }
}

/// # Safety
/// `name` is null or NUL-terminated.
unsafe fn text(name: *const c_char) -> Option<String> {
    if name.is_null() {
        return None;
    }
    // SAFETY: the caller says so.
    let name = unsafe { CStr::from_ptr(name) };
    Some(name.to_string_lossy().into_owned())
}
