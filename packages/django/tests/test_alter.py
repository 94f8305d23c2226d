import time
import unittest

from django.db import connection, models
from django.db.migrations import AddField, AlterField, CreateModel
from django.db.models.functions import Lower

from django_safe_backfill import SafeAlterField, SafeBackfill, SafeSetNotNull
from django_safe_backfill.errors import SafeMigrationError
from tests.operations import ROWS, OperationTestCase


class AlterTestCase(OperationTestCase):
    kind = SafeAlterField

    def with_field(self, field, name="status"):
        self.run_plain(AddField("order", name, field))

    def alter(self, field, name="status", **options):
        operation = self.kind("order", name, field, **options)
        self.apply(operation)
        return operation


class SafeAlterFieldTest(AlterTestCase):
    def setUp(self):
        super().setUp()
        self.with_field(models.CharField(max_length=10, null=True))

    def test_the_usual_edit(self):
        file = self.file()
        self.sql("UPDATE shop_order SET status = 'mine' WHERE id = 1")
        operation = self.alter(models.CharField(max_length=20, default="active"))
        self.assertEqual(self.column(), ("character varying(20)", True, None))
        self.assertEqual(self.values(), {"mine": 1, "active": ROWS - 1})
        self.try_again(operation)
        self.assertEqual(self.file(), file)

    def test_the_reverse_restores_what_was_there(self):
        operation = self.alter(models.CharField(max_length=10, db_default="x", unique=False, db_index=True))
        self.assertEqual(self.column(), ("character varying(10)", True, "'x'::character varying"))
        self.assertEqual(len(self.indexes()), 2)
        self.reverse(operation)
        self.assertEqual(self.column(), ("character varying(10)", False, None))
        self.assertEqual(self.indexes(), [])

    def test_a_one_off_default_fills(self):
        self.alter(models.CharField(max_length=10, default="once"), preserve_default=False)
        self.assertEqual(self.values(), {"once": ROWS})

    def test_a_default_of_the_database_fills(self):
        self.alter(models.CharField(max_length=10, db_default=Lower(models.Value("WEB"))))
        self.assertEqual(self.values(), {"web": ROWS})

    def test_rows_that_are_null_are_an_error_without_a_default(self):
        with self.assertRaisesRegex(SafeMigrationError, "(?s)null.*HINT: Fill these rows with SafeBackfill"):
            self.alter(models.CharField(max_length=10))
        self.assertFalse(self.column()[1])
        self.assertEqual(self.constraints(), {})

    def test_unique_is_built_beside_writes_and_removed_again(self):
        self.sql("UPDATE shop_order SET status = id")
        operation = self.alter(models.CharField(max_length=10, null=True, unique=True))
        self.assertEqual([definition for definition, _ in self.constraints().values()], ["UNIQUE (status)"])
        self.try_again(operation)
        self.reverse(operation)
        self.assertEqual((self.constraints(), self.indexes()), ({}, []))

    def test_indexes_are_those_that_django_leaves(self):
        plain = models.CharField(max_length=10, null=True)
        indexed = models.CharField(max_length=10, null=True, db_index=True)
        unique = models.CharField(max_length=10, null=True, unique=True)
        both = models.CharField(max_length=10, null=True, unique=True, db_index=True)
        changes = [
            (indexed, both),
            (both, indexed),
            (indexed, unique),
            (unique, indexed),
            (both, plain),
            (unique, both),
        ]
        self.sql("UPDATE shop_order SET status = id")
        for number, (old, new) in enumerate(changes):
            found = []
            for kind in (AlterField, SafeAlterField):
                self.apply(AlterField("order", "status", old.clone()))
                changed = new.clone()
                # Django 6.1 keeps what it has computed.
                self.assertEqual(changed.unique, new.unique)
                self.apply(kind("order", "status", changed))
                found.append((self.indexes(), self.constraints()))
                self.apply(AlterField("order", "status", plain.clone()))
                self.assertEqual(self.indexes(), [])
            with self.subTest(change=number):
                self.assertEqual(found[1], found[0])

    def test_a_check_is_added_and_proven(self):
        self.with_field(models.IntegerField(null=True, default=1), "age")
        operation = self.alter(models.PositiveIntegerField(null=True), "age")
        self.assertIn(("CHECK ((age >= 0))", True), self.constraints().values())
        self.reverse(operation)
        self.assertEqual(self.constraints(), {})

    def test_a_foreign_key_keeps_its_constraint(self):
        self.with_field(models.ForeignKey("shop.Customer", models.CASCADE, null=True), "customer")
        oid = "SELECT oid, convalidated FROM pg_constraint WHERE conrelid = 'shop_order'::regclass AND contype = 'f'"
        before = self.sql(oid)
        operation = self.alter(models.ForeignKey("shop.Customer", models.PROTECT, default=2), "customer")
        self.assertEqual(self.values("customer_id"), {2: ROWS})
        self.assertEqual(self.sql(oid), before)
        self.assertEqual(len(self.indexes("customer_id")), 1)
        self.reverse(operation)
        self.assertEqual(self.sql(oid), before)
        self.assertFalse(self.column("customer_id")[1])

    def test_a_column_becomes_a_foreign_key(self):
        self.with_field(models.BigIntegerField(null=True, db_column="customer_id"), "customer")
        self.sql("UPDATE shop_order SET customer_id = 1")
        operation = self.alter(models.ForeignKey("shop.Customer", models.CASCADE, null=True), "customer")
        self.assertEqual([valid for _, valid in self.constraints().values()], [True])
        self.reverse(operation)
        self.assertEqual(self.constraints(), {})

    @unittest.skipUnless(hasattr(models, "DB_CASCADE"), "before Django 6.1")
    def test_a_column_becomes_a_foreign_key_of_which_the_database_deletes(self):
        self.with_field(models.BigIntegerField(null=True, db_column="customer_id"), "customer")
        operation = self.alter(models.ForeignKey("shop.Customer", models.DB_CASCADE, null=True), "customer")
        self.assertIn("ON DELETE CASCADE", next(iter(self.constraints().values()))[0])
        self.try_again(operation)
        with self.assertRaisesRegex(SafeMigrationError, "ON DELETE changes"):
            self.alter(models.ForeignKey("shop.Customer", models.CASCADE, null=True), "customer")

    def test_what_would_read_or_rewrite_the_table_is_refused(self):
        self.with_field(models.IntegerField(null=True), "count")
        for name, field, reason in [
            ("status", models.CharField(max_length=5, null=True), "reads or rewrites"),
            ("status", models.IntegerField(null=True), "reads or rewrites"),
            ("count", models.BigIntegerField(null=True), "reads or rewrites"),
            ("status", models.CharField(max_length=10, null=True, db_collation="C"), "collation"),
            ("status", models.CharField(max_length=10, null=True, db_column="other"), "renamed"),
        ]:
            with self.subTest(field=field.deconstruct()), self.assertRaisesRegex(SafeMigrationError, reason):
                self.alter(field, name)
        self.sql("ALTER TABLE shop_order ADD CHECK (status <> 'x')")
        with self.assertRaisesRegex(SafeMigrationError, "a constraint or an index with an expression"):
            self.alter(models.CharField(max_length=20, null=True))

    def test_a_longer_type_does_not_read_the_table(self):
        file = self.file()
        self.alter(models.CharField(max_length=20, null=True))
        self.alter(models.TextField(null=True))
        self.assertEqual(self.column()[0], "text")
        self.assertEqual(self.file(), file)

    def test_backwards_a_longer_type_stays(self):
        for longer in models.CharField(max_length=20, db_default="x", db_index=True), models.TextField(default="x"):
            with self.subTest(field=longer.deconstruct()):
                file = self.file()
                operation = self.alter(longer)
                of_type = self.column()[0]
                self.sql("UPDATE shop_order SET status = 'longer than before'")
                self.reverse(operation)
                self.assertEqual(self.column(), (of_type, False, None))
                self.assertEqual(self.indexes(), [])
                self.apply(operation)
                self.assertEqual(self.column()[:2], (of_type, True))
                self.reverse(operation)
                self.assertEqual((self.values(), self.file()), ({"longer than before": ROWS}, file))

    def test_a_longer_type_that_was_kept_is_kept(self):
        for longer in models.CharField(max_length=30, null=True), models.TextField(null=True):
            operation = self.alter(longer)
            self.sql("UPDATE shop_order SET status = 'longer than it was'")
            self.reverse(operation)
            file, of_type = self.file(), self.column()[0]
            operation = self.alter(models.CharField(max_length=20, default="x", db_index=True))
            self.assertEqual((self.file(), self.column()), (file, (of_type, True, None)))
            self.reverse(operation)
            self.assertEqual((self.file(), self.column()), (file, (of_type, False, None)))

    def test_a_shorter_type_is_refused_where_a_longer_one_was_kept(self):
        operation = self.alter(models.CharField(max_length=30, null=True))
        with self.connection.schema_editor(collect_sql=True, atomic=False) as editor:
            operation.database_backwards("shop", editor, self.state, self.before)
        self.assertFalse([line for line in editor.collected_sql if not line.startswith("--")])
        self.reverse(operation)
        with self.assertRaisesRegex(SafeMigrationError, "its type changes"):
            self.alter(models.CharField(max_length=5, null=True))

    def test_backwards_a_foreign_key_goes_and_its_longer_type_stays(self):
        self.run_plain(CreateModel("Kind", [("code", models.CharField(max_length=20, primary_key=True))]))
        self.addCleanup(self.sql, "DROP TABLE shop_kind CASCADE")
        self.with_field(models.CharField(max_length=10, null=True, db_column="kind_id"), "kind")
        operation = self.alter(models.ForeignKey("shop.Kind", models.CASCADE, null=True), "kind")
        self.assertEqual(len(self.constraints()), 1)
        self.reverse(operation)
        self.assertEqual(self.constraints(), {})
        self.assertEqual(self.indexes("kind_id"), [])
        self.assertEqual(self.column("kind_id"), ("character varying(20)", False, None))
        self.sql("UPDATE shop_order SET kind_id = 'anything'")

    def test_one_default_for_rows_of_a_unique_field_is_refused_before_anything_is_changed(self):
        with self.assertRaisesRegex(SafeMigrationError, "is unique, and all rows that are NULL"):
            self.alter(models.CharField(max_length=10, unique=True, default="x"))
        self.assertEqual((self.values(), self.column()[1]), ({None: ROWS}, False))
        self.sql("UPDATE shop_order SET status = id WHERE id > 1")
        self.alter(models.CharField(max_length=10, unique=True, default="x"))
        self.assertEqual(self.value("SELECT status FROM shop_order WHERE id = 1"), "x")

    def test_what_is_no_change_of_the_database_is_none(self):
        self.alter(models.CharField(max_length=10, null=True, verbose_name="x", choices=[("a", "b")]))
        self.assertEqual(self.column(), ("character varying(10)", False, None))

    def test_nobody_waits_while_not_null_is_proven(self):
        self.sql("UPDATE shop_order SET status = 'x'")
        with self.session() as session:
            session.execute("BEGIN; SELECT count(*) FROM shop_order")
            started = time.monotonic()
            with self.impatient(), self.assertRaises(SafeMigrationError):
                self.sql("SET safe_backfill.lock_timeout = '100ms'; SET safe_backfill.lock_retry_limit = 1")
                self.alter(models.CharField(max_length=10))
            self.assertLess(time.monotonic() - started, 60)
            session.execute("ROLLBACK")
        self.alter(models.CharField(max_length=10))
        self.assertTrue(self.column()[1])


class SafeSetNotNullTest(AlterTestCase):
    kind = SafeSetNotNull

    def setUp(self):
        super().setUp()
        self.with_field(models.TextField(null=True))

    def test_three_steps_and_back(self):
        self.apply(SafeBackfill("order", "status", "x"))
        operation = self.alter(models.TextField())
        self.assertTrue(self.column()[1])
        self.assertEqual(self.constraints(), {})
        self.try_again(operation)
        self.reverse(operation)
        self.assertFalse(self.column()[1])

    def test_it_fills_nothing(self):
        with self.assertRaisesRegex(SafeMigrationError, "null"):
            self.alter(models.TextField(default="x"))
        self.assertEqual(self.values(), {None: ROWS})

    def test_another_change_is_refused(self):
        self.apply(SafeBackfill("order", "status", "x"))
        with self.assertRaisesRegex(SafeMigrationError, "SafeAlterField"):
            self.alter(models.TextField(unique=True))

    def test_a_foreign_key(self):
        self.with_field(models.ForeignKey("shop.Customer", models.CASCADE, null=True, default=1), "customer")
        operation = self.alter(models.ForeignKey("shop.Customer", models.CASCADE), "customer")
        self.assertTrue(self.column("customer_id")[1])
        self.reverse(operation)
        self.assertFalse(self.column("customer_id")[1])
        self.assertEqual([valid for _, valid in self.constraints().values()], [True])
        self.assertEqual(connection.alias, "default")
