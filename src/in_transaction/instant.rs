//! What keeps rows that lack a column from getting a value without being written.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::Error;
    use crate::fill::instant;
    use crate::fill::target::Target;
    use crate::fill::value::Value;
    use crate::pg::missing;
    use crate::pg::spi::quote_literal;
    use crate::pg::transaction::within_statement;
    use crate::pg::tx::Tx;
    use crate::pg::value::Constant;

    fn with_value<T>(text: &str, work: impl FnOnce(&Tx, &Target, &Value) -> T) -> T {
        let oid = Spi::get_one::<pg_sys::Oid>("SELECT 't'::regclass::oid");
        let oid = oid.expect("a row").expect("an OID");
        within_statement(|tx| {
            let target = Target::prove(tx, oid, "c").expect("a target");
            let constant = Constant::from_text(tx, text, target.column_type).expect("a value");
            let value = Value::of_constant(tx, constant, None, &target).expect("a value");
            work(tx, &target, &value)
        })
    }

    fn obstacle() -> Option<Error> {
        with_value("7", |tx, target, value| {
            instant::require(tx, target, value).err()
        })
    }

    #[pg_test]
    fn nothing_in_the_way_is_none() {
        Spi::run("CREATE TABLE t (id int PRIMARY KEY, n int, c int)").expect("the table");
        assert!(obstacle().is_none());
        // What does not use the column.
        Spi::run(
            "CREATE INDEX ON t (n) WHERE n > 0; ALTER TABLE t ADD CHECK (n > id);
             CREATE STATISTICS s ON id, n FROM t; CREATE VIEW v AS SELECT c FROM t;
             CREATE POLICY p ON t USING (n > 0)",
        )
        .expect("the objects");
        assert!(obstacle().is_none());
    }

    #[pg_test]
    fn the_first_obstacle_is_told() {
        Spi::run(
            "CREATE TABLE t (id int, c int); CREATE TABLE child () INHERITS (t);
             CREATE INDEX i ON child (c); CREATE STATISTICS s ON id, c FROM t",
        )
        .expect("the objects");
        let detail = obstacle().and_then(|error| error.detail());
        assert!(detail.is_some_and(|detail| detail.starts_with("Index \"i\"")));
        Spi::run("DROP INDEX i").expect("the index");
        let detail = obstacle().and_then(|error| error.detail());
        assert!(detail.is_some_and(|detail| detail.starts_with("Statistics object \"s\"")));
    }

    #[pg_test]
    fn a_value_is_kept_as_an_array_of_one() {
        Spi::run("CREATE TABLE t (id int); INSERT INTO t VALUES (1); ALTER TABLE t ADD c text[]")
            .expect("the table");
        let kept = with_value(r#"{"a,b",NULL,"NULL"}"#, |tx, target, value| {
            let constant = value.constant().expect("a constant");
            let array = missing::array_of(tx, &constant);
            assert_eq!(missing::find(tx, target.table, "c"), None);
            missing::set(tx, target.table, "c", &array);
            assert_eq!(missing::find(tx, target.table, "c"), Some(array.clone()));
            array
        });
        let elements = quote_literal(r#"{"a,b",NULL,"NULL"}"#);
        let same = format!("SELECT c = {elements}::text[] FROM t");
        assert_eq!(Spi::get_one::<bool>(&same), Ok(Some(true)), "{kept}");
    }
}
