//! Keeps Rust backtraces away from users.

use std::backtrace::Backtrace;

const VARIABLE: &str = "RUST_LIB_BACKTRACE";

/// Makes this library never capture a backtrace, whatever RUST_BACKTRACE says in the server's environment.
///
/// pgrx puts a captured backtrace into the DETAIL of errors. The standard library reads the environment at the first
/// capture and remembers the answer for this library alone; so the environment is put back afterwards.
pub fn never_capture() {
    let before = std::env::var_os(VARIABLE);
    // SAFETY: a backend has one thread, so nothing reads the environment meanwhile.
    unsafe { std::env::set_var(VARIABLE, "0") };
    let _ = Backtrace::capture();
    match before {
        // SAFETY: as above.
        Some(value) => unsafe { std::env::set_var(VARIABLE, value) },
        // SAFETY: as above.
        None => unsafe { std::env::remove_var(VARIABLE) },
    }
}
