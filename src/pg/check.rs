//! Tries a value on CHECK constraints before any row is touched.

use std::ffi::CString;

use pgrx::pg_sys;

use crate::pg::tx::Tx;
use crate::pg::value::Constant;

/// Whether a CHECK that looks at no other column than `number` lets `value` through; as in SQL, NULL does.
///
/// `tree` is the constraint as `pg_constraint.conbin` has it. The tree itself is evaluated. As SQL text it would be
/// parsed with the caller's search path, and could get other operators than it was created with.
///
/// # Errors
/// PostgreSQL's own, from the functions of the CHECK.
pub fn allows(_tx: &Tx, tree: &str, number: i16, value: &Constant) -> bool {
    // A tree has no NUL byte.
    let tree = CString::new(tree).unwrap_or_default();
    // SAFETY: the tree comes from the catalogs; all that is made of it lives in the current memory context, and the
    // executor state is freed after the result has been read. The slot has `number` columns.
    unsafe {
        let expression = pg_sys::stringToNode(tree.as_ptr());
        let executor = pg_sys::CreateExecutorState();
        let context = pg_sys::MakePerTupleExprContext(executor);
        (*context).ecxt_scantuple = row(number, value);
        let state = pg_sys::ExecPrepareExpr(expression.cast(), executor);
        let mut null = true;
        let result = pg_sys::ExecEvalExpr(state, context, &mut null);
        pg_sys::FreeExecutorState(executor);
        null || result.value() != 0
    }
}

/// A row whose column `number` has the value; the columns before it are NULL, and not looked at.
///
/// # Safety
/// `number` is at least 1.
unsafe fn row(number: i16, value: &Constant) -> *mut pg_sys::TupleTableSlot {
    let name = c"".as_ptr();
    let column_type = value.column_type();
    // SAFETY: the descriptor has as many columns as are described, and the slot as many as the descriptor.
    unsafe {
        let descriptor = pg_sys::CreateTemplateTupleDesc(number.into());
        for other in 1..number {
            pg_sys::TupleDescInitEntry(descriptor, other, name, pg_sys::INT4OID, -1, 0);
        }
        let (oid, modifier) = (column_type.oid, column_type.modifier);
        pg_sys::TupleDescInitEntry(descriptor, number, name, oid, modifier, 0);
        let slot = pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsVirtual);
        pg_sys::ExecStoreAllNullTuple(slot);
        let index = usize::from(number.unsigned_abs()) - 1;
        *(*slot).tts_values.add(index) = value.datum();
        *(*slot).tts_isnull.add(index) = false;
        slot
    }
}
