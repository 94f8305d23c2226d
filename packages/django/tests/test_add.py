import threading
import time
import uuid

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.migrations import AddField, CreateModel
from django.db.models import F, Value
from django.db.models.expressions import RawSQL
from django.db.models.functions import Lower, Now

from django_safe_backfill import SafeAddField, SafeAddNotNullField
from django_safe_backfill.errors import SafeMigrationError
from tests.operations import ROWS, OperationTestCase


class SafeAddFieldTest(OperationTestCase):
    def add(self, field, name="status", **options):
        operation = SafeAddField("order", name, field, **options)
        self.apply(operation)
        return operation

    def test_a_nullable_field_leaves_rows_as_they_are(self):
        file = self.file()
        operation = self.add(models.CharField(max_length=20, null=True))
        self.assertEqual(self.column(), ("character varying(20)", False, None))
        self.assertEqual(self.values(), {None: ROWS})
        self.assertEqual(self.file(), file)
        self.try_again(operation)
        self.reverse(operation)
        self.assertIsNone(self.column())

    def test_rows_get_the_default_as_with_djangos_operation(self):
        file = self.file()
        self.add(models.BooleanField(null=True, default=False))
        self.assertEqual(self.values(), {False: ROWS})
        self.assertEqual(self.column(), ("boolean", False, None))
        self.add(models.CharField(max_length=9, null=True, db_default="web"), "channel")
        self.assertEqual(self.values("channel"), {"web": ROWS})
        self.assertEqual(self.column("channel")[2], "'web'::character varying")
        self.assertEqual(self.file(), file)

    def test_a_default_of_the_operation_alone_is_used_and_forgotten(self):
        self.add(models.IntegerField(null=True, default=7), preserve_default=False)
        self.assertEqual(self.values(), {7: ROWS})
        self.assertFalse(self.state.models["shop", "order"].fields["status"].has_default())

    def test_a_default_that_is_called_is_called_once(self):
        self.add(models.UUIDField(null=True, default=uuid.uuid4))
        self.assertEqual(len(self.values()), 1)

    def test_a_stable_default_is_computed_once_and_a_volatile_one_for_each_row(self):
        file = self.file()
        self.add(models.DateTimeField(null=True, db_default=Now()))
        self.assertEqual(list(self.values().values()), [ROWS])
        self.add(models.UUIDField(null=True, db_default=RandomUUID()), "token")
        self.assertEqual(len(self.values("token")), ROWS)
        self.assertEqual(self.column("token"), ("uuid", False, "gen_random_uuid()"))
        self.assertEqual(self.file(), file)

    def test_a_foreign_key_has_its_index_and_a_valid_constraint(self):
        operation = self.add(models.ForeignKey("shop.Customer", models.CASCADE, null=True), "customer")
        (definition, is_valid) = next(iter(self.constraints().values()))
        self.assertIn(
            "FOREIGN KEY (customer_id) REFERENCES shop_customer(id) DEFERRABLE INITIALLY DEFERRED", definition
        )
        self.assertTrue(is_valid)
        self.assertEqual([valid for _, valid in self.indexes("customer_id")], [True])
        self.try_again(operation)
        self.assertEqual(len(self.constraints()), 1)
        self.reverse(operation)
        self.assertIsNone(self.column("customer_id"))

    def test_a_foreign_key_to_its_own_table(self):
        self.add(models.ForeignKey("self", models.CASCADE, null=True), "parent")
        self.assertEqual(len(self.constraints()), 1)

    def test_a_one_to_one_field_is_unique(self):
        self.add(models.OneToOneField("shop.Customer", models.CASCADE, null=True), "customer")
        definitions = sorted(definition for definition, _ in self.constraints().values())
        self.assertEqual([text.split(" (")[0] for text in definitions], ["FOREIGN KEY", "UNIQUE"])

    def test_names_are_those_that_django_gives(self):
        fields = {
            "customer": models.ForeignKey("shop.Customer", models.CASCADE, null=True),
            "slug": models.CharField(max_length=20, null=True, db_index=True),
        }
        found = []
        for kind in (SafeAddField, AddField):
            for name, field in fields.items():
                self.apply(kind("order", name, field))
            indexes = self.sql("SELECT indexname, indexdef FROM pg_indexes WHERE tablename = 'shop_order' ORDER BY 1")
            found.append((indexes, self.constraints()))
            self.tearDown()
            self.setUp()
        self.assertEqual(found[0], found[1])

    def test_indexes_and_checks(self):
        self.add(models.SlugField(null=True, unique=True))
        self.assertEqual(len(self.indexes()), 2)
        self.assertTrue(all(valid for _, valid in self.indexes()))
        self.add(models.PositiveIntegerField(null=True, db_index=True), "age")
        self.assertIn(("CHECK ((age >= 0))", True), self.constraints().values())
        self.assertEqual(len(self.indexes("age")), 1)

    def test_a_comment_and_a_collation(self):
        self.add(models.CharField(max_length=20, null=True, db_comment="of the order", db_collation="C"))
        self.assertEqual(
            self.value(
                "SELECT col_description(attrelid, attnum) FROM pg_attribute WHERE attname = 'status'"
                " AND attrelid = 'shop_order'::regclass"
            ),
            "of the order",
        )
        self.assertEqual(
            self.value(
                "SELECT collname FROM pg_attribute a JOIN pg_collation c ON c.oid = attcollation"
                " WHERE attname = 'status' AND attrelid = 'shop_order'::regclass"
            ),
            "C",
        )

    def test_a_many_to_many_field_is_a_table(self):
        operation = self.add(models.ManyToManyField("shop.Customer"), "customers")
        self.assertEqual(self.value("SELECT count(*) FROM shop_order_customers"), 0)
        self.try_again(operation)
        self.reverse(operation)
        self.assertIsNone(self.value("SELECT to_regclass('shop_order_customers')::text"))

    def test_a_many_to_many_field_does_not_keep_writers_waiting(self):
        operation = SafeAddField("order", "customers", models.ManyToManyField("shop.Customer"))
        with self.session() as session:
            session.execute("BEGIN; UPDATE shop_customer SET name = name WHERE id = 1")
            with self.impatient(), self.assertRaisesRegex(SafeMigrationError, "could not lock the table in 3 attempts"):
                self.apply(operation)
            session.execute("ROLLBACK")
        self.assertIsNone(self.value("SELECT to_regclass('shop_order_customers')::text"))
        self.apply(operation)
        self.assertEqual(len(self.constraints("shop_order_customers")), 3)

    def test_an_index_that_another_session_builds_is_left_alone(self):
        operation = SafeAddField("order", "status", models.IntegerField(null=True, db_index=True))
        self.apply(operation)
        index = self.value("SELECT indexname FROM pg_indexes WHERE indexname LIKE 'shop_order_status%%' AND %s", True)
        self.sql(f"DROP INDEX {index}")
        with self.session() as old, self.session() as builder:
            # It waits for older transactions.
            old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pg_class")
            build = f"CREATE INDEX CONCURRENTLY {index} ON shop_order (status)"
            thread = threading.Thread(target=builder.execute, args=[build])
            thread.start()
            while not self.value("SELECT count(*) FROM pg_stat_progress_create_index WHERE index_relid <> 0"):
                time.sleep(0.01)
            with self.assertRaisesRegex(SafeMigrationError, "another session is building index"):
                self.try_again(operation)
            old.execute("ROLLBACK")
            thread.join()
        self.assertEqual([valid for _, valid in self.indexes()], [True])
        self.try_again(operation)

    def test_indexes_are_in_the_tablespace_of_the_field(self):
        self.sql("SET allow_in_place_tablespaces = on")
        self.sql("CREATE TABLESPACE elsewhere LOCATION ''")
        self.addCleanup(self.sql, "DROP TABLESPACE elsewhere")
        self.addCleanup(self.drop)
        self.add(models.IntegerField(null=True, unique=True, db_tablespace="elsewhere"))
        self.add(models.IntegerField(null=True, db_index=True, db_tablespace="elsewhere"), "code")
        found = "SELECT count(*) FROM pg_indexes WHERE tablename = 'shop_order' AND tablespace = 'elsewhere'"
        self.assertEqual(self.value(found), 2)

    def test_names_that_need_quotes(self):
        self.add(models.IntegerField(null=True, default=1, db_column="Odd name; --", db_index=True))
        self.assertEqual(self.value('SELECT count(*) FROM shop_order WHERE "Odd name; --" = 1'), ROWS)

    def test_not_null_is_refused(self):
        with self.assertRaisesRegex(SafeMigrationError, "SafeAddNotNullField"):
            self.add(models.IntegerField(default=1))
        self.assertIsNone(self.column())

    def test_another_column_of_that_name_is_refused(self):
        self.sql("ALTER TABLE shop_order ADD COLUMN status text")
        with self.assertRaisesRegex(SafeMigrationError, "of type text without a default and not of type integer"):
            self.add(models.IntegerField(null=True))

    def test_a_column_that_others_have_added_is_not_taken_for_ours(self):
        field = models.CharField(max_length=9, null=True, db_default="web")
        self.sql("ALTER TABLE shop_order ADD COLUMN status varchar(9)")
        with self.assertRaisesRegex(SafeMigrationError, "(?s)without a default and not .* with default 'web'.*--fake"):
            self.add(field)
        self.sql("ALTER TABLE shop_order ALTER COLUMN status SET DEFAULT 'web'")
        with self.assertRaisesRegex(SafeMigrationError, "rows are NULL that should have the default"):
            self.add(field)
        self.sql("UPDATE shop_order SET status = 'mine'")
        self.add(field)
        self.assertEqual(self.values(), {"mine": ROWS})

    def test_columns_that_are_made_otherwise_are_not_taken_for_ours(self):
        text, number = models.CharField(max_length=9, null=True), models.IntegerField(null=True)
        for column, field, reason in [
            ("integer NOT NULL DEFAULT 5; ALTER TABLE shop_order ALTER status DROP DEFAULT", number, "is NOT NULL"),
            ("integer GENERATED ALWAYS AS IDENTITY", number, "an identity column"),
            ("integer GENERATED ALWAYS AS (7) STORED", models.IntegerField(null=True, db_default=7), "generated"),
            ('varchar(9) COLLATE "C"', text, 'COLLATE "C"'),
        ]:
            with self.subTest(column=column):
                self.sql(f"ALTER TABLE shop_order ADD COLUMN status {column}")
                with self.assertRaisesRegex(SafeMigrationError, reason):
                    self.add(field)
                self.sql("ALTER TABLE shop_order DROP COLUMN status")
        self.sql("CREATE TABLE shop_order_customers (id int)")
        self.addCleanup(self.sql, "DROP TABLE shop_order_customers")
        with self.assertRaisesRegex(SafeMigrationError, "there is a table shop_order_customers already"):
            self.add(models.ManyToManyField("shop.Customer"), "customers")

    def test_a_time_that_django_sets_is_not_a_default(self):
        self.sql("ALTER TABLE shop_order ADD COLUMN placed timestamptz DEFAULT '2001-01-01'")
        self.state.add_field("shop", "order", "placed", models.DateTimeField(null=True), True)
        created = models.DateTimeField(auto_now_add=True, db_index=True)
        operation = SafeAddNotNullField("order", "created", created, backfill=F("placed"))
        self.apply(operation)
        self.assertEqual(self.value("SELECT count(*) FROM shop_order WHERE created = placed"), ROWS)
        self.try_again(operation)
        operation = SafeAddField("order", "seen", models.DateTimeField(auto_now=True, null=True))
        self.apply(operation)
        self.assertEqual(self.value("SELECT count(DISTINCT seen) FROM shop_order WHERE seen IS NOT NULL"), 1)
        self.try_again(operation)
        clock = RawSQL("clock_timestamp()", [])
        self.add(models.DateTimeField(auto_now_add=True, null=True, db_default=clock), "noted")
        self.assertGreater(self.value("SELECT count(DISTINCT noted) FROM shop_order"), 1)

    def test_null_by_default_is_no_default(self):
        for kind, options in (models.IntegerField, {}), (models.CharField, {"max_length": 5}):
            for default in None, Value(None):
                operation = self.add(kind(null=True, db_default=default, **options))
                self.try_again(operation)
                self.reverse(operation)

    def test_a_domain_with_constraints_is_refused_before_the_table_is_rewritten(self):
        self.sql("CREATE DOMAIN positive AS integer CHECK (VALUE > 0)")
        self.addCleanup(self.sql, "DROP DOMAIN positive")

        class Positive(models.IntegerField):
            def db_type(self, connection):
                return "positive"

        file = self.file()
        for operation in [
            SafeAddField("order", "status", Positive(null=True)),
            SafeAddField("order", "status", Positive(null=True, default=3)),
            SafeAddNotNullField("order", "status", Positive(db_default=3)),
            SafeAddNotNullField("order", "status", Positive(), backfill=F("total")),
        ]:
            with self.assertRaisesRegex(SafeMigrationError, "is a domain with constraints"):
                self.apply(operation)
            self.assertEqual((self.column(), self.file()), (None, file))

    def test_a_default_of_a_domain_is_not_taken_for_the_values_asked_for(self):
        self.sql("CREATE DOMAIN letter AS text DEFAULT 'q'")
        self.addCleanup(self.sql, "DROP DOMAIN letter")

        class Letter(models.TextField):
            def db_type(self, connection):
                return "letter"

        with self.assertRaisesRegex(SafeMigrationError, "is a domain with a default"):
            self.apply(SafeAddNotNullField("order", "status", Letter(), backfill=Lower("email")))
        self.assertIsNone(self.column())
        # As with AddField.
        self.add(Letter(null=True))
        self.assertEqual(self.values(), {"q": ROWS})

    def test_a_table_of_links_that_is_a_model_of_its_own_may_have_more_columns(self):
        links = [
            ("id", models.BigAutoField(primary_key=True)),
            ("order", models.ForeignKey("shop.Order", models.CASCADE)),
            ("customer", models.ForeignKey("shop.Customer", models.CASCADE)),
        ]
        self.run_plain(CreateModel("Link", links))
        self.addCleanup(self.sql, "DROP TABLE IF EXISTS shop_link")
        self.sql("ALTER TABLE shop_link ADD COLUMN legacy int")
        self.add(models.ManyToManyField("shop.Customer", through="shop.Link"), "links")
        operation = self.add(models.ManyToManyField("shop.Customer", related_name="+"), "others")
        self.sql("ALTER TABLE shop_order_others ADD COLUMN note text")
        self.reverse(operation)
        self.assertIsNone(self.value("SELECT to_regclass('shop_order_others')::text"))

    def test_a_check_that_names_another_column_is_known_again(self):
        class Part(models.IntegerField):
            def db_check(self, connection):
                return f'"{self.column}" <= "total"'

        operation = self.add(Part(null=True))
        self.try_again(operation)
        self.assertEqual([valid for _, valid in self.constraints().values()], [True])

    def test_a_rewrite_between_two_attempts_does_no_harm(self):
        operation = self.add(models.CharField(max_length=9, null=True, db_default="web"))
        self.sql("VACUUM FULL shop_order")
        self.try_again(operation)
        self.assertEqual(self.values(), {"web": ROWS})

    def test_a_constraint_or_index_of_the_same_name_is_not_taken_for_ours(self):
        fields = {
            "customer": models.ForeignKey("shop.Customer", models.CASCADE, null=True, db_index=False),
            "code": models.IntegerField(null=True, unique=True),
            "age": models.PositiveIntegerField(null=True),
            "slug": models.IntegerField(null=True, db_index=True),
        }
        operations = {name: self.add(field, name) for name, field in fields.items()}
        self.sql("UPDATE shop_order SET code = id")
        constraints = {definition.split(" ")[0]: name for name, (definition, _) in self.constraints().items()}
        (index,) = self.sql("SELECT indexname FROM pg_indexes WHERE indexname LIKE %s", "shop_order_slug_%")[0]
        changes = [
            ("customer", constraints["FOREIGN"], "FOREIGN KEY (customer_id) REFERENCES shop_order"),
            ("customer", constraints["FOREIGN"], "CHECK (customer_id > 0)"),
            ("code", constraints["UNIQUE"], "UNIQUE (total, code)"),
            ("age", constraints["CHECK"], "CHECK (code >= 0)"),
            ("age", constraints["CHECK"], "CHECK (age > -100)"),
            ("code", constraints["UNIQUE"], "UNIQUE NULLS NOT DISTINCT (code)"),
            ("code", constraints["UNIQUE"], "UNIQUE (code) DEFERRABLE"),
            (
                "customer",
                constraints["FOREIGN"],
                "FOREIGN KEY (customer_id) REFERENCES shop_customer ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED",
            ),
        ]
        for name, constraint, definition in changes:
            with self.subTest(name=name, definition=definition):
                self.sql(f"ALTER TABLE shop_order DROP CONSTRAINT {constraint}")
                self.sql(f"ALTER TABLE shop_order ADD CONSTRAINT {constraint} {definition}")
                self.refuses_another(operations[name], "a constraint")
        self.sql(f"ALTER TABLE shop_order DROP CONSTRAINT {constraints['UNIQUE']}")
        for name, definition in (
            ("code", f"{constraints['UNIQUE']} ON shop_order (code)"),
            ("slug", f"{index} ON shop_order (slug) WHERE slug > 0"),
            ("slug", f"{index} ON shop_order USING hash (slug)"),
        ):
            with self.subTest(definition=definition):
                self.sql(f"DROP INDEX IF EXISTS {index}; CREATE INDEX {definition}")
                self.refuses_another(operations[name], "an index")

    def refuses_another(self, operation, kind):
        with (
            self.connection.schema_editor(atomic=False) as editor,
            self.assertRaisesRegex(SafeMigrationError, f"(?s)has {kind} .* already, which is another one.*go on"),
        ):
            operation.apply(editor, *[self.state.apps.get_model("shop", "order")] * 2)

    def test_one_value_for_all_rows_of_a_unique_field_is_refused_before_anything_is_changed(self):
        for kind, field in [
            (SafeAddField, models.IntegerField(null=True, unique=True, default=1)),
            (SafeAddNotNullField, models.IntegerField(unique=True, default=1)),
            (SafeAddNotNullField, models.IntegerField(unique=True, db_default=1)),
        ]:
            with self.subTest(kind=kind), self.assertRaisesRegex(SafeMigrationError, "is unique, and all rows"):
                self.apply(kind("order", "status", field))
            self.assertIsNone(self.column())
        self.sql("DELETE FROM shop_order WHERE id > 1")
        self.apply(SafeAddNotNullField("order", "status", models.IntegerField(unique=True, default=1)))
        self.assertEqual(self.values(), {1: 1})

    def test_a_lock_is_waited_for_briefly_again_and_again(self):
        with self.session() as session:
            session.execute("BEGIN; LOCK TABLE shop_order IN ROW EXCLUSIVE MODE")
            with self.impatient(), self.assertRaisesRegex(SafeMigrationError, "could not lock the table in 3 attempts"):
                self.add(models.IntegerField(null=True))
            self.assertIsNone(self.column())
            release = threading.Timer(0.3, lambda: session.execute("ROLLBACK"))
            release.start()
            with self.impatient(ATTEMPTS=100):
                self.add(models.IntegerField(null=True))
            release.join()
        self.assertIsNotNone(self.column())
        self.assertEqual(self.value("SHOW lock_timeout"), "0")

    def test_rows_in_the_way_of_a_constraint_are_named_and_the_rerun_goes_on(self):
        operation = SafeAddField("order", "customer", models.ForeignKey("shop.Customer", models.CASCADE, null=True))
        self.sql(
            "ALTER TABLE shop_order ADD COLUMN customer_id bigint; UPDATE shop_order SET customer_id = 99 WHERE id = 5"
        )
        with self.assertRaisesRegex(
            SafeMigrationError, r"(?s)violates foreign key.*customer_id\)=\(99.*Mend these rows"
        ):
            self.apply(operation)
        self.sql("UPDATE shop_order SET customer_id = NULL")
        self.apply(operation)
        self.assertTrue(all(valid for _, valid in self.constraints().values()))

    def test_an_index_that_an_interruption_left_invalid_is_built_anew(self):
        operation = SafeAddField("order", "status", models.IntegerField(null=True, unique=True))
        self.sql("ALTER TABLE shop_order ADD COLUMN status int; UPDATE shop_order SET status = 1")
        with self.assertRaisesRegex(SafeMigrationError, "could not create unique index"):
            self.apply(operation)
        self.assertEqual([valid for _, valid in self.indexes()], [False])
        self.sql("UPDATE shop_order SET status = id")
        self.apply(operation)
        self.assertEqual([valid for _, valid in self.indexes()], [True])
        self.assertEqual(len(self.constraints()), 1)


class SafeAddNotNullFieldTest(OperationTestCase):
    def add(self, field, name="status", **options):
        operation = SafeAddNotNullField("order", name, field, **options)
        self.apply(operation)
        return operation

    def test_a_constant_is_not_written_into_the_rows(self):
        file, size = self.file(), self.value("SELECT pg_relation_size('shop_order')")
        operation = self.add(models.CharField(max_length=20), backfill="active")
        self.assertEqual(self.column(), ("character varying(20)", True, None))
        self.assertEqual(self.values(), {"active": ROWS})
        self.assertEqual((self.file(), self.value("SELECT pg_relation_size('shop_order')")), (file, size))
        self.try_again(operation)
        self.reverse(operation)
        self.assertIsNone(self.column())

    def test_old_and_new_rows_may_get_different_values(self):
        self.add(models.CharField(max_length=20, db_default="new"), backfill="old")
        self.sql("INSERT INTO shop_order (email, total) VALUES ('x', 1)")
        self.assertEqual(self.values(), {"old": ROWS, "new": 1})

    def test_without_backfill_rows_get_the_default(self):
        self.add(models.IntegerField(default=3))
        self.assertEqual(self.values(), {3: ROWS})
        self.add(models.CharField(max_length=5, blank=True), "note")
        self.assertEqual(self.values("note"), {"": ROWS})
        self.add(models.UUIDField(db_default=RandomUUID(), unique=True), "token")
        self.assertEqual(len(self.values("token")), ROWS)
        self.assertTrue(self.column("token")[1])

    def test_without_any_value_it_is_refused(self):
        with self.assertRaisesRegex(SafeMigrationError, "(?s)has no default.*backfill"):
            self.add(models.IntegerField())
        self.assertIsNone(self.column())

    def test_an_expression_is_computed_from_each_row(self):
        operation = self.add(models.TextField(db_default=""), backfill=Lower("email"))
        self.assertEqual(self.value("SELECT count(*) FROM shop_order WHERE status = lower(email)"), ROWS)
        self.assertTrue(self.column()[1])
        self.try_again(operation)
        self.add(models.IntegerField(db_default=0), "double", backfill=F("total") * 2)
        self.add(models.TextField(db_default=""), "raw", backfill=RawSQL("md5(email || %s)", ["'%"]))
        self.assertEqual(self.value("SELECT count(*) FROM shop_order WHERE raw = md5(email || %s)", "'%"), ROWS)

    def test_a_foreign_key(self):
        operation = self.add(models.ForeignKey("shop.Customer", models.CASCADE), "customer", backfill=3)
        self.assertEqual(self.values("customer_id"), {3: ROWS})
        self.assertEqual([valid for _, valid in self.constraints().values()], [True])
        self.reverse(operation)

    def test_a_value_that_violates_a_check_is_an_error(self):
        with self.assertRaisesRegex(SafeMigrationError, "violate|violated"):
            self.add(models.PositiveIntegerField(), backfill=-1)

    def test_rows_that_come_in_meanwhile_have_the_default(self):
        stop = threading.Event()

        def insert():
            with self.session() as session:
                while not stop.is_set():
                    session.execute("INSERT INTO shop_order (email, total) VALUES ('Late@x', 1)")
                    time.sleep(0.001)

        application = threading.Thread(target=insert)
        application.start()
        try:
            self.add(models.TextField(db_default="late"), backfill=Lower("email"))
        finally:
            stop.set()
            application.join()
        self.assertTrue(self.column()[1])
        self.assertEqual(self.value("SELECT count(*) FROM shop_order WHERE status IS NULL"), 0)

    def test_a_column_that_is_there_already_is_finished(self):
        for options, value in ({"backfill": 5}, 5), ({}, 3):
            self.sql("ALTER TABLE shop_order DROP COLUMN IF EXISTS status, ADD COLUMN status int")
            self.sql("UPDATE shop_order SET status = 7 WHERE id <= 10")
            operation = SafeAddNotNullField("order", "status", models.IntegerField(default=3), **options)
            before = self.state
            self.apply(operation)
            self.assertEqual(self.values(), {7: 10, value: ROWS - 10})
            self.assertTrue(self.column()[1])
            self.state = before

    def test_sql_is_shown_though_the_column_is_there(self):
        operation = self.add(models.ForeignKey("shop.Customer", models.CASCADE), "customer", backfill=3)
        with self.connection.schema_editor(collect_sql=True, atomic=False) as editor:
            operation.database_forwards("shop", editor, self.before, self.state)
        shown = "\n".join(editor.collected_sql)
        for part in (
            "ADD COLUMN",
            "DEFAULT 3 NOT NULL",
            "CREATE INDEX CONCURRENTLY",
            "NOT VALID",
            "VALIDATE CONSTRAINT",
        ):
            self.assertIn(part, shown)

    def test_sql_is_shown_of_a_default_that_differs_from_row_to_row(self):
        operation = SafeAddNotNullField("order", "token", models.UUIDField(db_default=RandomUUID()))
        after = self.state.clone()
        operation.state_forwards("shop", after)
        with self.connection.schema_editor(collect_sql=True, atomic=False) as editor:
            operation.database_forwards("shop", editor, self.state, after)
        self.assertRegex(editor.collected_sql[-2], "safe_backfill_using")
        self.assertRegex(editor.collected_sql[-1], "safe_set_not_null")

    def test_none_and_functions_are_refused(self):
        for value in (None, uuid.uuid4):
            with self.assertRaises(ValueError):
                SafeAddNotNullField("order", "status", models.IntegerField(), backfill=value)

    def test_json_null_is_a_value(self):
        self.add(models.JSONField(), backfill=Value(None, models.JSONField()))
        self.assertEqual(self.value("SELECT count(*) FROM shop_order WHERE status = 'null'::jsonb"), ROWS)
