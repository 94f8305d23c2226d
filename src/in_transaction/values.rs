//! Values on their way into a column.

#[pgrx::pg_schema]
mod tests {
    use pgrx::PgSqlErrorCode;
    use pgrx::prelude::*;

    use crate::pg::spi::Statement;
    use crate::pg::transaction::within_statement;
    use crate::pg::value::{ColumnType, Constant, Given, NoCast};

    const VARCHAR_20: ColumnType = ColumnType {
        oid: pg_sys::VARCHAROID,
        modifier: 24,
    };

    fn literal(text: &str, column_type: ColumnType) -> (String, usize) {
        within_statement(|tx| {
            let value = Constant::from_text(tx, text, column_type).expect("a value");
            (value.to_text(tx), value.stored_bytes(tx))
        })
    }

    /// The value converted to the type: as text, and how many bytes it takes.
    fn assigned<T: IntoDatum>(value: T, to: pg_sys::Oid) -> Result<(String, usize), NoCast> {
        let given = Given::of(value).expect("a datum");
        within_statement(|tx| {
            let value = Constant::from_value(tx, given, plain(to))?.expect("not null");
            Ok((value.to_text(tx), value.stored_bytes(tx)))
        })
    }

    fn plain(oid: pg_sys::Oid) -> ColumnType {
        ColumnType { oid, modifier: -1 }
    }

    #[pg_test]
    fn text_is_read_as_a_literal() {
        // One byte of header, for the value is short.
        assert_eq!(literal("active", VARCHAR_20), ("active".into(), 7));
        let name = within_statement(|tx| VARCHAR_20.name(tx));
        assert_eq!(name, "character varying(20)");
    }

    #[pg_test(error = "value too long for type character varying(20)")]
    fn text_too_long_for_the_column_fails() {
        literal("a value of more than twenty characters", VARCHAR_20);
    }

    #[pg_test]
    fn values_are_assigned() {
        let converted = assigned(42i32, pg_sys::INT8OID).expect("a cast");
        assert_eq!(converted, ("42".into(), 8));
    }

    #[pg_test]
    fn types_without_an_assignment_cast_are_told() {
        assert!(assigned(42i32, pg_sys::DATEOID).is_err());
    }

    #[pg_test(error = "value out of range: underflow")]
    fn values_out_of_range_fail() {
        let _ = assigned(1e-300f64, pg_sys::FLOAT4OID);
    }

    #[pg_test]
    fn long_values_keep_their_header() {
        assert_eq!(literal(&"x".repeat(200), plain(pg_sys::TEXTOID)).1, 204);
    }

    #[pg_test]
    fn values_by_reference_outlive_their_source() {
        let uuid = "00000000-0000-0000-0000-00000000002a";
        assert_eq!(literal(uuid, plain(pg_sys::UUIDOID)), (uuid.into(), 16));
    }

    #[pg_test(error = "parameters do not match the prepared statement")]
    fn parameters_are_counted_against_the_statement() {
        within_statement(|tx| {
            let statement = Statement::prepare(tx, "SELECT $1 + $2", &[pg_sys::INT4OID; 2]);
            statement.execute(tx, &[&1i32]);
        });
    }

    #[pg_test]
    fn results_are_read_as_the_type_they_have() {
        within_statement(|tx| {
            assert_eq!(tx.catalog_value("SELECT 42::bigint", &[]), Some(42i64));
            let undone = tx.attempt_except(&[PgSqlErrorCode::ERRCODE_INTERNAL_ERROR], || {
                tx.catalog_value::<i64>("SELECT 'forty-two'::text", &[])
            });
            assert!(undone.is_err());
        });
    }
}
