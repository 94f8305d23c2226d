//! Whose rights a statement runs with.

use pgrx::pg_sys;

use crate::pg::settings::Temporarily;
use crate::pg::tx::Tx;

struct Restore {
    user: pg_sys::Oid,
    context: i32,
}

impl Drop for Restore {
    fn drop(&mut self) {
        // SAFETY: gives back what `acting_as` read; correct on an error's way out too.
        unsafe { pg_sys::SetUserIdAndSecContext(self.user, self.context) };
    }
}

/// Runs `work` with the rights of `role` and nothing but `pg_catalog` on the search path, then goes back to the caller's.
///
/// Only for statements on the extension's own tables: none of the caller's code (triggers, functions, casts) may run
/// within.
pub fn acting_as<T>(tx: &Tx, role: pg_sys::Oid, work: impl FnOnce() -> T) -> T {
    let mut restore = Restore {
        user: pg_sys::InvalidOid,
        context: 0,
    };
    // SAFETY: the out-parameters are valid; `restore` undoes the switch on every way out.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&mut restore.user, &mut restore.context);
        let context = restore.context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        pg_sys::SetUserIdAndSecContext(role, context);
    }
    let _path = Temporarily::catalog_only(tx);
    work()
}

/// The role whose rights the session has now.
pub fn current_user() -> pg_sys::Oid {
    // SAFETY: a variable of this backend.
    unsafe { pg_sys::GetUserId() }
}
