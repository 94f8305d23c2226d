//! Values on their way into statements, and the types that values are read as.

use pgrx::datum::IntoDatum;
use pgrx::pg_sys;
use planner::window::Tid;

use crate::pg::tid;

/// A value for a parameter of a statement.
pub trait Parameter {
    /// The value as PostgreSQL takes it.
    fn bind(&self) -> Bound;
}

/// A value as PostgreSQL takes it, valid as long as what it was made from and the memory context of that moment.
pub struct Bound {
    oid: pg_sys::Oid,
    datum: Option<pg_sys::Datum>,
}

impl Bound {
    /// # Safety
    /// The datum is a value of the type with this OID, and lives as long as what it was made from.
    pub(super) unsafe fn new(oid: pg_sys::Oid, datum: pg_sys::Datum) -> Self {
        Bound {
            oid,
            datum: Some(datum),
        }
    }
}

impl<T: IntoDatum + Clone> Parameter for T {
    fn bind(&self) -> Bound {
        Bound {
            oid: T::type_oid(),
            datum: self.clone().into_datum(),
        }
    }
}

/// An array of `tid`.
pub struct Tids<'a>(pub &'a [Tid]);

impl Parameter for Tids<'_> {
    fn bind(&self) -> Bound {
        let mut items: Vec<pg_sys::ItemPointerData> =
            self.0.iter().copied().map(tid::to_item_pointer).collect();
        let mut datums: Vec<pg_sys::Datum> = items
            .iter_mut()
            .map(|item| pg_sys::Datum::from(std::ptr::from_mut(item)))
            .collect();
        // SAFETY: the datums point to live item pointers, which construct_array copies; a tid is 6 bytes, passed by
        // reference, aligned to 2.
        let array = unsafe {
            pg_sys::construct_array(
                datums.as_mut_ptr(),
                datums.len() as i32,
                pg_sys::TIDOID,
                size_of::<pg_sys::ItemPointerData>() as i32,
                false,
                pg_sys::TYPALIGN_SHORT as _,
            )
        };
        Bound {
            oid: pg_sys::TIDARRAYOID,
            datum: Some(pg_sys::Datum::from(array)),
        }
    }
}

/// The values of all parameters of a statement, while it runs.
pub(super) struct Bindings {
    pub types: Vec<pg_sys::Oid>,
    pub values: Vec<pg_sys::Datum>,
    pub nulls: Vec<std::ffi::c_char>,
}

impl Bindings {
    pub fn of(parameters: &[&dyn Parameter]) -> Self {
        let mut bindings = Bindings {
            types: vec![],
            values: vec![],
            nulls: vec![],
        };
        for bound in parameters.iter().map(|parameter| parameter.bind()) {
            let null = if bound.datum.is_some() { b' ' } else { b'n' };
            bindings.types.push(bound.oid);
            bindings.nulls.push(null as std::ffi::c_char);
            bindings
                .values
                .push(bound.datum.unwrap_or(pg_sys::Datum::from(0)));
        }
        bindings
    }
}

/// Raises an error unless values of type `given` can be read as `T`.
pub fn require_type<T: IntoDatum>(given: pg_sys::Oid) {
    // SAFETY: looks both types up in the catalogs.
    let fits =
        T::is_compatible_with(given) || unsafe { pg_sys::IsBinaryCoercible(given, T::type_oid()) };
    if !fits {
        pgrx::error!("a value of type {given:?} was read as {:?}", T::type_oid());
    }
}
