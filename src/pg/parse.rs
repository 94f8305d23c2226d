//! PostgreSQL's own parser, asked about a piece of SQL that a user gave.

use std::ffi::CString;

use pgrx::{PgSqlErrorCode, pg_sys};

use crate::pg::tx::Tx;
use crate::pg::value::ColumnType;

/// Whether `text` is one SQL expression and nothing more.
///
/// It is parsed as the one item of a SELECT, first alone and then within parentheses, as it will stand; both times the
/// result must be a SELECT of one unnamed value with no other clause. This rejects lists of values, and text that
/// closes the parenthesis early.
///
/// # Errors
/// PostgreSQL's own syntax errors.
pub fn is_expression(_tx: &Tx, text: &str) -> bool {
    selects_one_value(&format!("SELECT {text}")) && selects_one_value(&format!("SELECT ({text}\n)"))
}

/// Whether `text` is one SELECT, or its like, that stores nothing with INTO.
///
/// # Errors
/// PostgreSQL's own syntax errors.
pub fn is_query(_tx: &Tx, text: &str) -> bool {
    // SAFETY: the node lives as long as the memory context that is current.
    one_select(text).is_some_and(|select| unsafe { (*select).intoClause.is_null() })
}

fn selects_one_value(sql: &str) -> bool {
    // SAFETY: as in `is_query`; the items of a SELECT are ResTargets.
    one_select(sql).is_some_and(|select| unsafe {
        is_bare_select(&*select)
            && length((*select).targetList) == 1
            && is_bare_target(&*first::<pg_sys::ResTarget>((*select).targetList))
    })
}

/// The SELECT that `sql` is, if it is that and nothing more. It lives in the memory context that is current.
fn one_select(sql: &str) -> Option<*const pg_sys::SelectStmt> {
    let sql = CString::new(sql).ok()?;
    // SAFETY: the string is NUL-terminated; the parser returns a list of RawStmt nodes in the current memory context,
    // and each cast follows the check of the node's tag.
    unsafe {
        let statements = pg_sys::raw_parser(sql.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT);
        if length(statements) != 1 {
            return None;
        }
        let statement = (*first::<pg_sys::RawStmt>(statements)).stmt;
        let is_select = (*statement).type_ == pg_sys::NodeTag::T_SelectStmt;
        is_select.then(|| statement.cast::<pg_sys::SelectStmt>().cast_const())
    }
}

fn is_bare_select(select: &pg_sys::SelectStmt) -> bool {
    select.op == pg_sys::SetOperation::SETOP_NONE
        && select.distinctClause.is_null()
        && select.intoClause.is_null()
        && select.fromClause.is_null()
        && select.whereClause.is_null()
        && select.groupClause.is_null()
        && select.havingClause.is_null()
        && select.windowClause.is_null()
        && select.valuesLists.is_null()
        && select.sortClause.is_null()
        && select.limitOffset.is_null()
        && select.limitCount.is_null()
        && select.lockingClause.is_null()
        && select.withClause.is_null()
}

fn is_bare_target(target: &pg_sys::ResTarget) -> bool {
    target.name.is_null() && target.indirection.is_null()
}

/// The type that `text` names, such as `varchar(20)`; `None` if it is not exactly the name of a type.
///
/// # Errors
/// PostgreSQL's own, such as 42704 for a type that does not exist.
pub fn type_name(tx: &Tx, text: &str) -> Option<ColumnType> {
    let text = CString::new(text).ok()?;
    tx.attempt_except(&[PgSqlErrorCode::ERRCODE_SYNTAX_ERROR], || {
        let (mut oid, mut modifier) = (pg_sys::InvalidOid, -1);
        // SAFETY: the string is NUL-terminated and the out-parameters are valid; errors are raised, not returned.
        unsafe {
            #[cfg(feature = "pg15")]
            pg_sys::parseTypeString(text.as_ptr(), &mut oid, &mut modifier, false);
            #[cfg(not(feature = "pg15"))]
            pg_sys::parseTypeString(text.as_ptr(), &mut oid, &mut modifier, std::ptr::null_mut());
        }
        ColumnType { oid, modifier }
    })
    .ok()
}

/// # Safety
/// `list` is null or a valid list.
unsafe fn length(list: *const pg_sys::List) -> i32 {
    if list.is_null() {
        0
    } else {
        // SAFETY: the caller says so.
        unsafe { (*list).length }
    }
}

/// # Safety
/// `list` is a valid list of pointers with at least one element, which points to a `T`.
unsafe fn first<T>(list: *const pg_sys::List) -> *const T {
    // SAFETY: the caller says so.
    unsafe { (*(*list).elements).ptr_value.cast_const().cast() }
}
