//! How a procedure was called, and with what.

use pgrx::datum::FromDatum;
use pgrx::pg_sys;

use crate::error::Error;
use crate::pg::spi;

/// The call of a procedure, as PostgreSQL hands it over.
#[derive(Clone, Copy)]
pub struct Call {
    info: pg_sys::FunctionCallInfo,
    procedure: &'static str,
}

impl Call {
    /// Wraps the call information that a SQL-callable function named `procedure` was given.
    pub fn new(info: pg_sys::FunctionCallInfo, procedure: &'static str) -> Self {
        Call { info, procedure }
    }

    /// Fails unless this call may commit and write.
    ///
    /// # Errors
    /// [`Error::TransactionBlock`], [`Error::HotStandby`], [`Error::ReadOnly`], [`Error::Encoding`].
    pub fn require_commit(&self) -> Result<(), Error> {
        let procedure = self.procedure;
        spi::free_orphans();
        // SAFETY: plain reads of the server's state.
        let (standby, read_only, encoding) = unsafe {
            (
                pg_sys::RecoveryInProgress(),
                pg_sys::XactReadOnly,
                pg_sys::GetDatabaseEncoding(),
            )
        };
        match () {
            () if standby => Err(Error::HotStandby { procedure }),
            () if self.is_atomic() => Err(Error::TransactionBlock { procedure }),
            () if read_only => Err(Error::ReadOnly { procedure }),
            () if encoding != pg_sys::pg_enc::PG_UTF8 as i32 => Err(Error::Encoding { procedure }),
            () => Ok(()),
        }
    }

    fn is_atomic(&self) -> bool {
        // SAFETY: PostgreSQL keeps the call information and its context node alive for the whole call; the node's
        // tag says whether it is a CallContext.
        unsafe {
            let context = (*self.info).context;
            context.is_null()
                || (*context).type_ != pg_sys::NodeTag::T_CallContext
                || (*context.cast::<pg_sys::CallContext>()).atomic
        }
    }

    /// Argument `n` (from 0) as `T`, which the declaration of the procedure gives it; `None` when it is NULL.
    pub fn get<T: FromDatum>(&self, n: usize) -> Option<T> {
        let (datum, _) = self.argument(n)?;
        // SAFETY: the callers name the type that the declaration has.
        unsafe { T::from_datum(datum, false) }
    }

    /// Argument `n` (from 0), a `name`.
    pub fn name(&self, n: usize) -> Option<String> {
        let (datum, _) = self.argument(n)?;
        // SAFETY: a name is NUL-terminated.
        let name = unsafe { std::ffi::CStr::from_ptr(datum.cast_mut_ptr()) };
        Some(name.to_string_lossy().into_owned())
    }

    /// The datum and type of argument `n` (from 0), or `None` when it is NULL or of unknown type.
    pub fn argument(&self, n: usize) -> Option<(pg_sys::Datum, pg_sys::Oid)> {
        // SAFETY: the call information is alive, and `n` is checked against the number of arguments it carries.
        unsafe {
            if n >= (*self.info).nargs as usize {
                return None;
            }
            let argument = *(*self.info).args.as_ptr().add(n);
            let argument_type = pg_sys::get_fn_expr_argtype((*self.info).flinfo, n as i32);
            (!argument.isnull && argument_type != pg_sys::InvalidOid)
                .then_some((argument.value, argument_type))
        }
    }
}
