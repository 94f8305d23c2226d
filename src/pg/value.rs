//! One value of a column's type, and the ways to it.

use std::ffi::{CStr, CString};

use pgrx::datum::{FromDatum, IntoDatum};
use pgrx::pg_sys;

use crate::pg::parameter::{Bound, Parameter, require_type};
use crate::pg::settings::Temporarily;
use crate::pg::tx::Tx;

/// The type of a column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColumnType {
    /// Its OID.
    pub oid: pg_sys::Oid,
    /// Its type modifier, such as the length of a `varchar(20)`; -1 for none.
    pub modifier: i32,
}

/// How values of a type are laid out.
#[derive(Debug, Clone, Copy)]
pub struct Layout {
    /// Bytes, or -1 for a varlena.
    pub length: i16,
    /// Bytes to which a value is aligned.
    pub align: usize,
    by_value: bool,
}

impl ColumnType {
    /// How its values are laid out.
    pub fn layout(self, _tx: &Tx) -> Layout {
        let (mut length, mut by_value, mut align) = (0, false, 0);
        // SAFETY: the out-parameters are valid; the type exists, being a column's.
        unsafe { pg_sys::get_typlenbyvalalign(self.oid, &mut length, &mut by_value, &mut align) };
        let align = match align as u8 {
            pg_sys::TYPALIGN_SHORT => 2,
            pg_sys::TYPALIGN_INT => 4,
            pg_sys::TYPALIGN_DOUBLE => 8,
            _ => 1,
        };
        Layout {
            length,
            align,
            by_value,
        }
    }

    /// Its name as SQL writes it, such as `character varying(20)`.
    pub fn name(self, _tx: &Tx) -> String {
        // SAFETY: returns a NUL-terminated string for any OID.
        unsafe {
            CStr::from_ptr(pg_sys::format_type_with_typemod(self.oid, self.modifier))
                .to_string_lossy()
                .into_owned()
        }
    }
}

impl ColumnType {
    /// Its name, with its schema wherever it depends on the search path.
    pub fn qualified_name(self, _tx: &Tx) -> String {
        let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
        // SAFETY: returns a NUL-terminated string for any OID.
        unsafe {
            CStr::from_ptr(pg_sys::format_type_extended(
                self.oid,
                self.modifier,
                flags as u16,
            ))
            .to_string_lossy()
            .into_owned()
        }
    }

    /// Whether it is a composite type, for which `IS NULL` does not mean the same as NOT NULL.
    pub fn is_row(self, _tx: &Tx) -> bool {
        // SAFETY: looks the type up by its OID.
        unsafe { pg_sys::type_is_rowtype(self.oid) }
    }

    /// Whether it is a domain with a CHECK or NOT NULL, its own or one of the domains it is made from.
    pub fn has_domain_constraints(self, _tx: &Tx) -> bool {
        // SAFETY: looks the type up by its OID.
        unsafe { pg_sys::DomainHasConstraints(self.oid) }
    }

    /// Whether it is a domain whose default may differ from row to row.
    pub fn default_is_volatile(self, _tx: &Tx) -> bool {
        // SAFETY: the default is an expression tree in the current memory context, or null.
        unsafe {
            let default = pg_sys::get_typdefault(self.oid);
            !default.is_null() && pg_sys::contain_volatile_functions(default)
        }
    }
}

/// There is no assignment cast from this type to the column's.
#[derive(Debug, Clone, Copy)]
pub struct NoCast {
    /// The value's type.
    pub from: ColumnType,
}

/// A value that is not NULL, kept in memory of its own, so that it outlives every transaction.
#[derive(Debug)]
pub struct Constant {
    column_type: ColumnType,
    by_value: Option<pg_sys::Datum>,
    /// Words instead of bytes, so that they are aligned for any type.
    by_reference: Vec<u64>,
    bytes: usize,
}

/// A non-null value as the caller gave it, with its type. It lives as long as the CALL.
#[derive(Clone, Copy)]
pub struct Given {
    datum: pg_sys::Datum,
    oid: pg_sys::Oid,
}

impl Given {
    /// # Safety
    /// The datum is a value of the type with this OID.
    pub unsafe fn new(datum: pg_sys::Datum, oid: pg_sys::Oid) -> Self {
        Given { datum, oid }
    }

    /// A value of a Rust type, as a test gives it; `None` if it is NULL.
    #[cfg(any(test, feature = "pg_test"))]
    pub fn of<T: IntoDatum>(value: T) -> Option<Self> {
        let oid = T::type_oid();
        value.into_datum().map(|datum| Given { datum, oid })
    }

    /// As `T`, which must be its type.
    pub fn get<T: FromDatum + IntoDatum>(&self) -> Option<T> {
        require_type::<T>(self.oid);
        // SAFETY: the value has that type, or one with the same values.
        unsafe { T::from_datum(self.datum, false) }
    }

    /// The text of a `name`.
    pub fn name(&self) -> Option<String> {
        if self.oid != pg_sys::NAMEOID {
            return None;
        }
        // SAFETY: a name is NUL-terminated.
        let name = unsafe { CStr::from_ptr(self.datum.cast_mut_ptr()) };
        Some(name.to_string_lossy().into_owned())
    }
}

impl Constant {
    /// Reads `text` as the column's type would read a literal, domain constraints included.
    ///
    /// # Errors
    /// PostgreSQL's own, such as 22P02 or 22001. `None` if the type makes NULL of the text.
    pub fn from_text(tx: &Tx, text: &str, column_type: ColumnType) -> Option<Self> {
        let text = CString::new(text).ok()?;
        let (mut input, mut parameter) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
        // SAFETY: the out-parameters are valid and the text is NUL-terminated and may be written to by the function.
        unsafe {
            pg_sys::getTypeInputInfo(column_type.oid, &mut input, &mut parameter);
            let text = pg_sys::pstrdup(text.as_ptr());
            let datum = pg_sys::OidInputFunctionCall(input, text, parameter, column_type.modifier);
            Some(Self::copy(tx, datum, column_type))
        }
    }

    /// Converts a value of another type as an INSERT would: by assignment casts.
    ///
    /// `None` if the cast makes NULL of it.
    ///
    /// # Errors
    /// [`NoCast`], and PostgreSQL's own for a value that does not fit, such as 22003, 22001 or 23514.
    pub fn from_value(
        tx: &Tx,
        given: Given,
        column_type: ColumnType,
    ) -> Result<Option<Self>, NoCast> {
        let from = given.oid;
        // SAFETY: the datum is of type `from`; the nodes live in the current memory context, and the executor state
        // is freed after its result has been copied.
        unsafe {
            let value_type = ColumnType {
                oid: from,
                modifier: -1,
            };
            let layout = value_type.layout(tx);
            let literal = pg_sys::makeConst(
                from,
                -1,
                pg_sys::get_typcollation(from),
                layout.length.into(),
                given.datum,
                false,
                layout.by_value,
            );
            let expression = pg_sys::coerce_to_target_type(
                std::ptr::null_mut(),
                literal.cast(),
                from,
                column_type.oid,
                column_type.modifier,
                pg_sys::CoercionContext::COERCION_ASSIGNMENT,
                pg_sys::CoercionForm::COERCE_IMPLICIT_CAST,
                -1,
            );
            if expression.is_null() {
                return Err(NoCast { from: value_type });
            }
            let executor = pg_sys::CreateExecutorState();
            let state = pg_sys::ExecPrepareExpr(expression.cast(), executor);
            let context = pg_sys::MakePerTupleExprContext(executor);
            let mut null = true;
            let result = pg_sys::ExecEvalExpr(state, context, &mut null);
            let constant = (!null).then(|| Self::copy(tx, result, column_type));
            pg_sys::FreeExecutorState(executor);
            Ok(constant)
        }
    }

    /// # Safety
    /// `datum` is a value of the column's type that is not NULL.
    unsafe fn copy(tx: &Tx, datum: pg_sys::Datum, column_type: ColumnType) -> Self {
        let layout = column_type.layout(tx);
        if layout.by_value {
            return Constant {
                column_type,
                by_value: Some(datum),
                by_reference: vec![],
                bytes: layout.length as usize,
            };
        }
        // SAFETY: a datum by reference points to as many bytes as its type's length or its own header says.
        unsafe {
            let (source, bytes): (*const u8, usize) = match layout.length {
                -1 => {
                    let flat = pg_sys::pg_detoast_datum(datum.cast_mut_ptr());
                    (flat.cast(), pgrx::varlena::varsize_any(flat))
                }
                -2 => {
                    let text: *const std::ffi::c_char = datum.cast_mut_ptr();
                    (text.cast(), CStr::from_ptr(text).count_bytes() + 1)
                }
                length => (datum.cast_mut_ptr::<u8>().cast_const(), length as usize),
            };
            let mut by_reference = vec![0u64; bytes.div_ceil(8)];
            std::ptr::copy_nonoverlapping(source, by_reference.as_mut_ptr().cast(), bytes);
            Constant {
                column_type,
                by_value: None,
                by_reference,
                bytes,
            }
        }
    }

    /// Its type.
    pub fn column_type(&self) -> ColumnType {
        self.column_type
    }

    /// The value, for PostgreSQL to read while `self` lives.
    pub fn datum(&self) -> pg_sys::Datum {
        self.by_value
            .unwrap_or_else(|| pg_sys::Datum::from(self.by_reference.as_ptr()))
    }

    /// Bytes it takes in a row, alignment not included; a short varlena has a header of one byte.
    pub fn stored_bytes(&self, tx: &Tx) -> usize {
        const LONGEST_SHORT: usize = 126 + 4 - 1;
        let is_varlena = self.column_type.layout(tx).length == -1;
        if is_varlena && self.bytes <= LONGEST_SHORT {
            self.bytes - 3
        } else {
            self.bytes
        }
    }

    /// The value as its type writes it, whatever the session's settings are.
    pub fn to_text(&self, tx: &Tx) -> String {
        let _settings = Temporarily::portable_output(tx);
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: the out-parameters are valid; the value is of the type that the function belongs to.
        unsafe {
            pg_sys::getTypeOutputInfo(self.column_type.oid, &mut output, &mut is_varlena);
            let text = pg_sys::OidOutputFunctionCall(output, self.datum());
            CStr::from_ptr(text).to_string_lossy().into_owned()
        }
    }
}

impl Parameter for Constant {
    fn bind(&self) -> Bound {
        // SAFETY: the value is of that type and lives as long as `self`.
        unsafe { Bound::new(self.column_type.oid, self.datum()) }
    }
}
