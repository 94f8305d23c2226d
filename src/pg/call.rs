//! How a procedure was called, and with what.

use pgrx::datum::{FromDatum, IntoDatum};
use pgrx::pg_sys;

use crate::pg::value::Given;

/// The call of a procedure, as PostgreSQL hands it over.
#[derive(Clone, Copy)]
pub struct Call {
    info: pg_sys::FunctionCallInfo,
    /// Its name, for messages.
    pub procedure: &'static str,
}

impl Call {
    /// Wraps the call information that a SQL-callable function named `procedure` was given.
    pub fn new(info: pg_sys::FunctionCallInfo, procedure: &'static str) -> Self {
        Call { info, procedure }
    }

    /// The OID of the procedure.
    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: the call information is alive, and so is what it says of the function.
        unsafe { (*(*self.info).flinfo).fn_oid }
    }

    /// Whether it cannot commit: it was called in a transaction block, or by a function that is in one.
    pub fn is_atomic(&self) -> bool {
        // SAFETY: the call information is alive; a context is a node, whose tag says whether it is a CallContext.
        unsafe {
            let context = (*self.info).context;
            context.is_null()
                || (*context).type_ != pg_sys::NodeTag::T_CallContext
                || (*context.cast::<pg_sys::CallContext>()).atomic
        }
    }

    /// Argument `n` (from 0) as `T`, which the declaration of the procedure gives it; `None` when it is NULL.
    pub fn get<T: FromDatum + IntoDatum>(&self, n: usize) -> Option<T> {
        self.argument(n)?.get()
    }

    /// Argument `n` (from 0), a `name`.
    pub fn name(&self, n: usize) -> Option<String> {
        self.argument(n)?.name()
    }

    /// Argument `n` (from 0), or `None` when it is NULL or of unknown type.
    pub fn argument(&self, n: usize) -> Option<Given> {
        // SAFETY: the call information is alive, and `n` is checked against the number of arguments it carries.
        unsafe {
            if n >= (*self.info).nargs as usize {
                return None;
            }
            let argument = *(*self.info).args.as_ptr().add(n);
            let argument_type = pg_sys::get_fn_expr_argtype((*self.info).flinfo, n as i32);
            (!argument.isnull && argument_type != pg_sys::InvalidOid)
                .then(|| Given::new(argument.value, argument_type))
        }
    }
}
