//! Heap pages, as they are read.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::pg::heap::Table;
    use crate::pg::ring::Ring;
    use crate::pg::transaction::within_statement;
    use planner::page::Growth;
    use planner::page::Page;

    const GROWTH: Growth = Growth { bytes: 7, align: 1 };

    fn with_table(sql: &str, work: impl FnOnce(&Table<'_>)) {
        Spi::run(sql).expect("the table");
        let oid = Spi::get_one::<pg_sys::Oid>("SELECT 't'::regclass::oid");
        let oid = oid.expect("a row").expect("an OID");
        within_statement(|tx| work(&Table::open_for_update(tx, oid).expect("the table")));
    }

    fn read(table: &Table<'_>, number: i16) -> Page {
        let column = table.column(number).expect("the column");
        table.read(0, &column, GROWTH, false, &Ring::for_sweeping())
    }

    #[pg_test]
    fn rows_without_the_column_are_unfilled() {
        with_table(
            "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 10);
             ALTER TABLE t ADD COLUMN c text",
            |table| {
                let page = read(table, 2);
                assert_eq!(page.rows.len(), 10);
                assert_eq!(page.rows[0].offset, 1);
                // 24 bytes of header, 4 of id, aligned to 8; the value makes it 35, aligned to 40.
                assert_eq!(page.rows[0].size, 32);
                assert_eq!(page.rows[0].filled_size, 40);
                assert_eq!(page.line_pointers, 291 - 10);
                assert!(page.free > 7000);
            },
        );
    }

    #[pg_test]
    fn rows_that_lack_the_column_are_counted() {
        with_table(
            "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 10);
             ALTER TABLE t ADD COLUMN c text; INSERT INTO t VALUES (11, NULL), (12, 'x')",
            |table| {
                let page = read(table, 2);
                assert_eq!((page.rows.len(), page.absent), (11, 10));
            },
        );
    }

    #[pg_test]
    fn rows_that_read_as_the_default_are_filled() {
        with_table(
            "CREATE TABLE t (id int); INSERT INTO t SELECT generate_series(1, 10);
             ALTER TABLE t ADD COLUMN c text DEFAULT 'x'; INSERT INTO t VALUES (11, NULL)",
            |table| {
                let page = read(table, 2);
                let offsets: Vec<u16> = page.rows.iter().map(|row| row.offset).collect();
                assert_eq!(offsets, [11]);
            },
        );
    }

    #[pg_test]
    fn dead_and_filled_rows_are_passed_over() {
        with_table(
            "CREATE TABLE t (id int, c text); INSERT INTO t SELECT generate_series(1, 10);
             DELETE FROM t WHERE id <= 3; UPDATE t SET c = 'x' WHERE id = 4",
            |table| {
                assert_eq!(read(table, 2).rows.len(), 6);
            },
        );
    }

    #[pg_test]
    fn a_look_sees_the_same_rows() {
        let sql = "CREATE TABLE t (id int, c text); INSERT INTO t SELECT generate_series(1, 10);
                   UPDATE t SET c = 'x' WHERE id <= 2; DELETE FROM t WHERE id = 3";
        with_table(sql, |table| {
            let column = table.column(2).expect("the column");
            let seen = table.look(0, &column, &Ring::for_reading());
            let offsets = |page: &Page| page.rows.iter().map(|row| row.offset).collect::<Vec<_>>();
            assert_eq!(offsets(&seen), [4, 5, 6, 7, 8, 9, 10]);
            assert_eq!(offsets(&read(table, 2)), offsets(&seen));
        });
    }

    #[pg_test]
    fn an_index_on_the_column_rules_hot_updates_out() {
        with_table(
            "CREATE TABLE t (id int PRIMARY KEY, c text, d text); CREATE INDEX ON t (lower(d))",
            |table| {
                assert!(table.allows_hot(2));
                assert!(!table.allows_hot(3));
                assert!(!table.allows_hot(1));
            },
        );
    }

    #[pg_test]
    fn dropped_columns_are_not_there() {
        with_table(
            "CREATE TABLE t (a int, b int); ALTER TABLE t DROP COLUMN a",
            |table| {
                assert!(table.column(1).is_none());
                assert_eq!(table.column(2).expect("b").name, "b");
                assert!(table.column(3).is_none());
            },
        );
    }

    #[pg_test]
    fn a_dropped_table_cannot_be_opened() {
        let dropped = pg_sys::Oid::from(4_000_000_000);
        within_statement(|tx| assert!(Table::open_for_update(tx, dropped).is_none()));
    }
}
