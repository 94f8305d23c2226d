//! Values on their way into a column.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::value::{ColumnType, Constant};

    const VARCHAR_20: ColumnType = ColumnType {
        oid: pg_sys::VARCHAROID,
        modifier: 24,
    };

    fn plain(oid: pg_sys::Oid) -> ColumnType {
        ColumnType { oid, modifier: -1 }
    }

    #[pg_test]
    fn text_is_read_as_a_literal() {
        let value = Constant::from_text("active", VARCHAR_20).expect("a value");
        assert_eq!(value.to_text(), "active");
        // One byte of header, for the value is short.
        assert_eq!(value.stored_bytes(), 7);
        assert_eq!(VARCHAR_20.name(), "character varying(20)");
    }

    #[pg_test(error = "value too long for type character varying(20)")]
    fn text_too_long_for_the_column_fails() {
        Constant::from_text("a value of more than twenty characters", VARCHAR_20);
    }

    #[pg_test]
    fn values_are_assigned() {
        let number = 42i32.into_datum().expect("a datum");
        let value = Constant::from_value(number, pg_sys::INT4OID, plain(pg_sys::INT8OID))
            .expect("a cast")
            .expect("not null");
        assert_eq!(value.to_text(), "42");
        assert_eq!(value.stored_bytes(), 8);
    }

    #[pg_test]
    fn types_without_an_assignment_cast_are_told() {
        let number = 42i32.into_datum().expect("a datum");
        assert!(Constant::from_value(number, pg_sys::INT4OID, plain(pg_sys::DATEOID)).is_err());
    }

    #[pg_test(error = "value out of range: underflow")]
    fn values_out_of_range_fail() {
        let number = 1e-300f64.into_datum().expect("a datum");
        let _ = Constant::from_value(number, pg_sys::FLOAT8OID, plain(pg_sys::FLOAT4OID));
    }

    #[pg_test]
    fn long_values_keep_their_header() {
        let value = Constant::from_text(&"x".repeat(200), plain(pg_sys::TEXTOID)).expect("a value");
        assert_eq!(value.stored_bytes(), 204);
    }

    #[pg_test]
    fn values_by_reference_outlive_their_source() {
        let value = Constant::from_text(
            "00000000-0000-0000-0000-00000000002a",
            plain(pg_sys::UUIDOID),
        )
        .expect("a value");
        assert_eq!(value.to_text(), "00000000-0000-0000-0000-00000000002a");
        assert_eq!(value.stored_bytes(), 16);
    }
}
