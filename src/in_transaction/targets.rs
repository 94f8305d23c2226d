//! Which tables and columns are fit to be filled.

#[pgrx::pg_schema]
mod tests {
    use pgrx::PgSqlErrorCode;
    use pgrx::prelude::*;

    use crate::error::Error;
    use crate::fill::target::Target;
    use crate::pg::transaction::within_statement;

    fn prove(column: &str) -> Result<Target, Error> {
        let oid = Spi::get_one::<pg_sys::Oid>("SELECT 't'::regclass::oid");
        let oid = oid.expect("a row").expect("an OID");
        within_statement(|tx| Target::prove(tx, oid, column))
    }

    fn refusal(sql: &str, column: &str) -> PgSqlErrorCode {
        Spi::run(sql).expect("the objects");
        prove(column).expect_err("a refusal").sqlstate()
    }

    #[pg_test]
    fn a_table_is_its_own_leaf() {
        Spi::run("CREATE TABLE t (id int, gone int, c varchar(20)); ALTER TABLE t DROP gone")
            .expect("the table");
        let target = prove("c").expect("a target");
        assert_eq!(target.leaves, [target.table]);
        assert_eq!(target.number, 3);
        assert!(!target.has_default && !target.is_not_null);
        let type_name = within_statement(|tx| target.column_type.name(tx));
        assert_eq!(type_name, "character varying(20)");
    }

    #[pg_test]
    fn defaults_and_not_null_are_seen() {
        Spi::run("CREATE TABLE t (c int NOT NULL DEFAULT 1)").expect("the table");
        let target = prove("c").expect("a target");
        assert!(target.is_not_null && target.has_default);
    }

    #[pg_test]
    fn partitions_are_leaves_and_their_parents_are_not() {
        Spi::run(
            "CREATE TABLE t (id int, c int) PARTITION BY RANGE (id);
             CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
             CREATE TABLE t11 PARTITION OF t1 DEFAULT; CREATE TABLE t2 PARTITION OF t DEFAULT",
        )
        .expect("the tables");
        assert_eq!(prove("c").expect("a target").leaves.len(), 2);
    }

    #[pg_test]
    fn parents_of_inheritance_are_leaves_too() {
        Spi::run("CREATE TABLE t (c int); CREATE TABLE child (d int) INHERITS (t)")
            .expect("the tables");
        assert_eq!(prove("c").expect("a target").leaves.len(), 2);
    }

    #[pg_test]
    fn keys_of_partitions_are_refused() {
        let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
        assert_eq!(
            refusal("CREATE TABLE t (c text) PARTITION BY LIST (lower(c))", "c"),
            code
        );
    }

    #[pg_test]
    fn views_are_refused() {
        let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
        assert_eq!(refusal("CREATE VIEW t AS SELECT 1 AS c", "c"), code);
    }

    #[pg_test]
    fn generated_columns_are_refused() {
        let code = PgSqlErrorCode::ERRCODE_GENERATED_ALWAYS;
        let sql = "CREATE TABLE t (a int, c int GENERATED ALWAYS AS (a) STORED)";
        assert_eq!(refusal(sql, "c"), code);
    }

    #[pg_test]
    fn rules_on_update_are_refused() {
        let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
        let sql = "CREATE TABLE t (c int); CREATE RULE r AS ON UPDATE TO t DO INSTEAD NOTHING";
        assert_eq!(refusal(sql, "c"), code);
    }
}
