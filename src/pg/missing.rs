//! The value that rows are read with which lack a column: `atthasmissing` and `attmissingval` of `pg_attribute`.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;

use crate::pg::lock::TableLock;
use crate::pg::settings::Temporarily;
use crate::pg::tx::Tx;
use crate::pg::value::Constant;

/// The value as `attmissingval` has it: an array of one element, which the column's type need not have an array type for.
pub fn array_of(tx: &Tx, value: &Constant) -> String {
    let _settings = Temporarily::portable_output(tx);
    let column_type = value.column_type();
    let (mut length, mut by_value, mut align): (i16, bool, c_char) = (0, false, 0);
    let mut datum = value.datum();
    // SAFETY: the out-parameters are valid; the datum is of that type, and is copied into the array, whose text is
    // NUL-terminated.
    unsafe {
        pg_sys::get_typlenbyvalalign(column_type.oid, &mut length, &mut by_value, &mut align);
        let array = pg_sys::construct_array(
            &mut datum,
            1,
            column_type.oid,
            length.into(),
            by_value,
            align,
        );
        let text = pg_sys::OidOutputFunctionCall(pg_sys::F_ARRAY_OUT.into(), array.into());
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// What `attmissingval` is now, as [`array_of`] writes it; `None` if rows that lack the column are NULL.
pub fn find(tx: &Tx, table: pg_sys::Oid, column: &str) -> Option<String> {
    const MISSING: &str = "
        SELECT attmissingval::text FROM pg_attribute
        WHERE attrelid = $1 AND attname = $2::name AND NOT attisdropped AND atthasmissing";
    let _settings = Temporarily::portable_output(tx);
    tx.catalog_value(MISSING, &[&table, &column])
}

/// Has rows that lack the column be read with the value. The caller has the table locked exclusively, and has made sure
/// that they have none yet.
///
/// `array` is the value as [`array_of`] writes it. Statistics that describe the column as it was are removed, in the table and
/// in those above it: the planner does without, as with a column that has just been added. Of a table above it they are left
/// if somebody else is about to change them, as by ANALYZE.
///
/// # Errors
/// PostgreSQL's own, from the input function of the type or a CHECK of the domain.
pub fn set(tx: &Tx, table: pg_sys::Oid, column: &str, array: &str) {
    let _reading = Temporarily::array_nulls(tx);
    // Text from PostgreSQL has no NUL byte.
    let (name, array) = (
        CString::new(column).unwrap_or_default(),
        CString::new(array).unwrap_or_default(),
    );
    // SAFETY: both are copies of ours, NUL-terminated, which outlive the call. It takes the lock that the caller holds once
    // more, and releases that one only. PostgreSQL invalidates every cached descriptor of the table at commit.
    unsafe {
        pg_sys::SetAttrMissing(
            table,
            pg_sys::pstrdup(name.as_ptr()),
            pg_sys::pstrdup(array.as_ptr()),
        );
    }
    for (described, number) in described(tx, table, column) {
        if described != table && !tx.try_lock_table(described, TableLock::ShareUpdateExclusive) {
            continue;
        }
        // SAFETY: removes the rows of pg_statistic, if there are any.
        unsafe { pg_sys::RemoveStatistics(described, number) };
    }
    // SAFETY: makes the changes visible to what this transaction does next.
    unsafe { pg_sys::CommandCounterIncrement() };
}

/// The table and those above it, with the number that the column has there.
fn described(tx: &Tx, table: pg_sys::Oid, column: &str) -> Vec<(pg_sys::Oid, i16)> {
    const ABOVE: &str = "
        WITH RECURSIVE above AS (
            SELECT $1::oid AS oid
            UNION
            SELECT i.inhparent FROM pg_inherits i JOIN above ON i.inhrelid = above.oid)
        SELECT a.attrelid, a.attnum FROM above JOIN pg_attribute a ON a.attrelid = above.oid
        WHERE a.attname = $2::name AND a.attnum > 0 AND NOT a.attisdropped";
    tx.catalog(ABOVE, &[&table, &column])
        .iter()
        .filter_map(|row| Some((row.get(1)?, row.get(2)?)))
        .collect()
}
