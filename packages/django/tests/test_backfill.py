import datetime
import decimal
import threading
import uuid

from django.contrib.postgres.fields import ArrayField
from django.contrib.postgres.functions import RandomUUID
from django.db import NotSupportedError, connections, models
from django.db.migrations import AddField, AlterField, CreateModel, RemoveField
from django.db.migrations.optimizer import MigrationOptimizer
from django.db.models import Case, F, Q, Sum, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Concat, Lower, Upper

from django_safe_backfill import SafeAddField, SafeAddNotNullField, SafeAlterField, SafeBackfill, SafeSetNotNull
from django_safe_backfill.errors import SafeMigrationError
from tests.operations import APP, ROWS, OperationTestCase


class SafeBackfillTest(OperationTestCase):
    def setUp(self):
        super().setUp()
        self.with_field(models.TextField(null=True))

    def with_field(self, field, name="status"):
        self.run_plain(AddField("order", name, field))

    def fill(self, value, name="status", **options):
        operation = SafeBackfill("order", name, value, **options)
        self.apply(operation)
        return operation

    def test_only_rows_that_are_null_are_filled(self):
        self.sql("UPDATE shop_order SET status = 'mine' WHERE id <= 10")
        operation = self.fill("active", batch_size=100)
        self.assertEqual(self.values(), {"mine": 10, "active": ROWS - 10})
        self.try_again(operation)
        self.reverse(operation)
        self.assertEqual(self.values(), {"mine": 10, "active": ROWS - 10})

    def test_a_batch_is_committed_before_the_next_begins(self):
        self.sql("CREATE TABLE transactions (id xid8)")
        self.sql(
            "CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN INSERT INTO transactions VALUES (pg_current_xact_id()); RETURN new; END$$;"
            " CREATE TRIGGER note BEFORE UPDATE ON shop_order FOR EACH ROW EXECUTE FUNCTION note()"
        )
        self.addCleanup(self.sql, "DROP TABLE transactions; DROP FUNCTION note CASCADE")
        self.fill("active", batch_size=100)
        self.assertGreaterEqual(self.value("SELECT count(DISTINCT id::text) FROM transactions"), ROWS // 100)

    def test_values_of_every_kind(self):
        kinds = [
            (models.BooleanField(null=True), False),
            (models.CharField(max_length=9, null=True), ""),
            (models.TextField(null=True), "it's {NULL} \\ %s"),
            (models.IntegerField(null=True), 0),
            (models.DecimalField(max_digits=8, decimal_places=2, null=True), decimal.Decimal("-1.50")),
            (models.DateField(null=True), datetime.date(2020, 2, 29)),
            (models.DateTimeField(null=True), datetime.datetime(2020, 2, 29, 1, 2, tzinfo=datetime.timezone.utc)),
            (models.DurationField(null=True), datetime.timedelta(days=2, seconds=3)),
            (models.UUIDField(null=True), uuid.UUID(int=7)),
            (models.JSONField(null=True), {"a": [1, None, "x'"]}),
            (models.BinaryField(null=True), b"\x00'\xff"),
            (models.GenericIPAddressField(null=True), "10.0.0.1"),
            (models.FloatField(null=True), float("inf")),
            (ArrayField(models.CharField(max_length=9), null=True), ["a,b", "", 'q"']),
            (ArrayField(models.IntegerField(), null=True), []),
        ]
        for number, (field, value) in enumerate(kinds):
            with self.subTest(field=type(field).__name__, value=value):
                name = f"field{number}"
                self.with_field(field, name)
                self.fill(value, name)
                model = self.state.apps.get_model(APP, "order")
                self.assertEqual(model.objects.filter(**{f"{name}__isnull": True}).count(), 0)
                found = model.objects.values_list(name, flat=True).first()
                self.assertEqual(bytes(found) if isinstance(value, bytes) else found, value)

    def test_sql_that_a_field_puts_around_its_values(self):
        class Shouting(models.TextField):
            def get_placeholder(self, value, compiler, connection):
                return "upper(%s)"

        self.apply(SafeAddField("order", "loud", Shouting(null=True)))
        self.apply(SafeBackfill("order", "loud", "hello"))
        self.assertEqual(self.values("loud"), {"HELLO": ROWS})

    def test_expressions(self):
        expressions = {
            Lower("email"): "lower(email)",
            Concat(
                F("email"), Value(" 100%'"), Upper("email"), output_field=models.TextField()
            ): "email || ' 100%%''' || upper(email)",
            Case(When(total__lt=10, then=Value("few")), default=Value("many")): (
                "CASE WHEN total < 10 THEN 'few' ELSE 'many' END"
            ),
            RawSQL("left(email, %s)", [3]): "left(email, 3)",
        }
        for number, (expression, sql) in enumerate(expressions.items()):
            with self.subTest(sql=sql):
                name = f"field{number}"
                self.with_field(models.TextField(null=True), name)
                self.fill(expression, name)
                # With a parameter, so that %% is one %.
                query = f"SELECT count(*) FROM shop_order WHERE {name} = {sql} AND id > %s"
                self.assertEqual(self.value(query, 0), ROWS)

    def test_where_leaves_other_rows_alone(self):
        self.fill("small", where=Q(total__lte=10) | Q(email__startswith="User99@"))
        self.assertEqual(self.values(), {"small": 11, None: ROWS - 11})
        self.fill("none", where=Q(pk__in=[]))
        self.assertEqual(self.values()[None], ROWS - 11)
        self.fill("rest", where=Q())
        self.assertNotIn(None, self.values())

    def test_what_needs_other_rows_is_refused(self):
        self.with_field(models.ForeignKey("shop.Customer", models.CASCADE, null=True), "customer")
        for value in (F("customer__name"), Sum("total")):
            with self.subTest(value=value), self.assertRaisesRegex(SafeMigrationError, "from a row alone"):
                self.fill(value)
        with self.assertRaisesRegex(SafeMigrationError, "from a row alone"):
            self.fill("x", where=Q(customer__name="x"))
        self.assertEqual(self.values(), {None: ROWS})

    def test_nothing_that_changes_a_field_of_the_expression_moves_across(self):
        remove = RemoveField("order", "email")
        for operation in (
            SafeBackfill("order", "status", Lower("email")),
            SafeAddNotNullField("order", "kind", models.TextField(), backfill=Lower("email")),
        ):
            optimized = MigrationOptimizer().optimize(
                [AddField("order", "x", models.TextField()), operation, remove], APP
            )
            self.assertLess(optimized.index(operation), optimized.index(remove))
            self.assertFalse(operation.reduce(remove, APP))

    def test_a_bad_expression_changes_nothing(self):
        with self.assertRaisesRegex(SafeMigrationError, "from a row alone"):
            self.apply(SafeAddNotNullField("order", "kind", models.TextField(), backfill=Lower("nothing")))
        self.assertIsNone(self.column("kind"))

    def test_none_and_functions_are_refused(self):
        for value in (None, uuid.uuid4):
            with self.assertRaises(ValueError):
                SafeBackfill("order", "status", value)

    def test_rows_that_are_null_still_fail_the_migration(self):
        with self.assertRaisesRegex(SafeMigrationError, "1 row of table .* still null"):
            self.fill(Case(When(total=5, then=Value(None)), default=Value("x")))
        self.assertEqual(self.values(), {"x": ROWS - 1, None: 1})

    def test_an_error_is_told_in_the_words_of_the_server(self):
        self.with_field(models.CharField(max_length=3, null=True), "code")
        with self.assertRaisesRegex(SafeMigrationError, "^value too long for type character varying"):
            self.fill("active", "code")

    def test_method_instant(self):
        self.fill("active", method="instant")
        self.assertEqual(self.values(), {"active": ROWS})
        self.assertEqual(
            self.value(
                "SELECT atthasmissing FROM pg_attribute WHERE attname = 'status'"
                + " AND attrelid = 'shop_order'::regclass"
            ),
            True,
        )
        with self.assertRaises(ValueError):
            SafeBackfill("order", "status", F("email"), method="instant")

    def test_a_run_that_is_going_on_is_named(self):
        started = threading.Event()
        with self.session() as session:
            self.sql("ALTER DATABASE tests SET safe_backfill.pause = '100ms'")
            self.addCleanup(self.sql, "ALTER DATABASE tests RESET safe_backfill.pause")

            def run():
                with self.session() as other:
                    started.set()
                    other.execute("CALL safe_backfill('shop_order', 'status', 'x', 10)")

            thread = threading.Thread(target=run)
            thread.start()
            started.wait()
            while not session.execute(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'object' AND objsubid > 0"
            ).fetchone()[0]:
                pass
            with self.assertRaisesRegex(SafeMigrationError, "(?s)another process|is working"):
                self.fill("active")
            thread.join()

    def test_timeouts_of_the_session_do_not_end_it_and_stay_what_they_were(self):
        self.sql(
            "SET statement_timeout = '20ms'; SET lock_timeout = '7ms'; SET idle_in_transaction_session_timeout = 9"
        )
        self.sql("SET safe_backfill.pause = '20ms'")
        self.fill("active", batch_size=100)
        self.assertEqual(self.values(), {"active": ROWS})
        self.assertEqual(
            [self.value(f"SHOW {name}") for name in ("statement_timeout", "lock_timeout")], ["20ms", "7ms"]
        )

    def test_it_needs_a_session_outside_of_a_transaction(self):
        operation = SafeBackfill("order", "status", "x")
        with (
            self.assertRaisesRegex(NotSupportedError, "inside a transaction"),
            self.connection.schema_editor() as editor,
        ):
            operation.database_forwards(APP, editor, self.state, self.state)

    def test_sql_is_shown_and_not_run(self):
        with self.connection.schema_editor(collect_sql=True, atomic=False) as editor:
            SafeBackfill("order", "status", "it's", where=Q(total=1)).database_forwards(
                APP, editor, self.state, self.state
            )
        self.assertEqual(
            editor.collected_sql,
            [
                "CALL \"public\".safe_backfill('\"shop_order\"', 'status', 'it''s', "
                "batch_size => 10000, filter => '\"total\" = 1');"
            ],
        )
        self.assertEqual(self.values(), {None: ROWS})

    def test_row_level_security_is_an_error(self):
        self.sql(
            "CREATE ROLE clerk LOGIN; GRANT ALL ON shop_order TO clerk;"
            "ALTER TABLE shop_order ENABLE ROW LEVEL SECURITY; SET ROLE clerk"
        )
        self.addCleanup(self.sql, "DROP OWNED BY clerk; DROP ROLE clerk")
        try:
            with self.assertRaisesRegex(SafeMigrationError, "row-level security"):
                self.fill("active")
        finally:
            self.sql("RESET ROLE")


class ElsewhereTest(OperationTestCase):
    def test_a_database_without_the_extension(self):
        message = "(?s)does not have the extension.*CREATE EXTENSION"
        editor = connections["without"].schema_editor(atomic=False)
        with editor, self.assertRaisesRegex(SafeMigrationError, message):
            SafeBackfill("order", "email", "x").database_forwards(APP, editor, self.state, self.state)

    def test_nothing_is_changed_before_the_extension_is_missed(self):
        connection = connections["without"]
        self.addCleanup(connection.close)
        with connection.cursor() as cursor:
            cursor.execute(
                "DROP TABLE IF EXISTS shop_order; CREATE TABLE shop_order (id bigint, email text, total int)"
            )
            cursor.execute("SELECT attname, atthasdef FROM pg_attribute WHERE attrelid = 'shop_order'::regclass")
            columns = cursor.fetchall()
        AlterField("order", "total", models.IntegerField(null=True)).state_forwards(APP, self.state)
        before = self.state
        for operation in (
            SafeAddNotNullField("order", "status", models.TextField(db_default=""), backfill=Lower("email")),
            SafeAddField("order", "token", models.UUIDField(null=True, db_default=RandomUUID())),
            SafeAlterField("order", "total", models.IntegerField(db_default=4)),
        ):
            with self.assertRaisesRegex(SafeMigrationError, "does not have the extension"):
                self.apply(operation, "without")
            self.state = before
        with connection.cursor() as cursor:
            cursor.execute("SELECT attname, atthasdef FROM pg_attribute WHERE attrelid = 'shop_order'::regclass")
            self.assertEqual(cursor.fetchall(), columns)
            cursor.execute("DROP TABLE shop_order")

    def test_sqlite_gets_djangos_own(self):
        connection = connections["sqlite"]
        self.addCleanup(connection.close)
        state = self.state.clone()
        create = CreateModel("Note", [("id", models.BigAutoField(primary_key=True)), ("text", models.TextField())])
        create.state_forwards(APP, state)
        with connection.schema_editor() as editor:
            create.database_forwards(APP, editor, self.state, state)
        connection.cursor().execute("INSERT INTO shop_note (text) VALUES ('A')")
        operations = [
            SafeAddField("note", "status", models.TextField(null=True)),
            SafeBackfill("note", "status", Lower("text"), where=Q(text="A")),
            SafeSetNotNull("note", "status", models.TextField()),
            SafeAddNotNullField("note", "copy", models.TextField(), backfill=Upper("status")),
        ]
        for operation in operations:
            before = state
            state = state.clone()
            operation.state_forwards(APP, state)
            with connection.schema_editor() as editor:
                operation.database_forwards(APP, editor, before, state)
        cursor = connection.cursor()
        cursor.execute("SELECT status, copy FROM shop_note")
        self.assertEqual(cursor.fetchall(), [("a", "A")])
