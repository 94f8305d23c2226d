import os
import time
import unittest

from django.core.exceptions import ImproperlyConfigured

from django_safe_backfill.conf import Conf
from tests.project import Project, interrupt, kill

MODELS = """
    class Order(models.Model):
        total = models.IntegerField(null=True)
        status = models.CharField(max_length=20, null=True)
"""
FIELDS = (
    "('id', models.BigAutoField(primary_key=True)), ('total', models.IntegerField(null=True)),"
    "('status', models.CharField(max_length=20, null=True))"
)
FILL = "django_safe_backfill.SafeBackfill('order', 'status', 'active', batch_size=100)"
ROWS = 3000
FILLING = (
    "EXISTS (SELECT FROM pg_stat_activity WHERE query LIKE 'CALL %' AND state = 'active' AND pid <> pg_backend_pid())"
)
FILLED = f"(SELECT count(*) > 300 FROM shop_order WHERE status IS NOT NULL) AND {FILLING}"


class MigrateTest(unittest.TestCase):
    options = None

    def setUp(self):
        self.project = Project(os.environ["SAFE_BACKFILL_HOST"], '"django_safe_backfill",', self.options)
        self.addCleanup(self.project.remove)
        self.project.models(MODELS)
        self.project.migration("0001_initial", f"migrations.CreateModel('Order', [{FIELDS}])", atomic=True)
        self.project.manage("migrate", "-v0")
        self.project.sql(f"INSERT INTO shop_order (total) SELECT generate_series(1, {ROWS})")
        self.project.migration("0002_fill", FILL, after="0001_initial")

    def slowly(self):
        """A fill takes some seconds, and tells how far it is."""
        self.project.sql(
            "ALTER DATABASE project SET safe_backfill.pause = '50ms';"
            "ALTER DATABASE project SET safe_backfill.progress_interval = '100ms'"
        )

    def quickly(self):
        self.project.sql("ALTER DATABASE project RESET ALL")

    def is_filled(self):
        return self.project.value("SELECT count(*) FROM shop_order WHERE status IS NULL") == 0

    def test_what_the_server_says_is_shown(self):
        self.slowly()
        output = self.project.manage("migrate")
        self.assertIn("Applying shop.0002_fill...\n", output)
        self.assertRegex(output, r"\n    table \"shop_order\": [\d.]+% done, \d+ rows filled")
        self.assertRegex(output, r"\n    filled 3000 rows of table \"shop_order\" OK\n")

    def test_it_is_quiet_on_request(self):
        self.slowly()
        self.assertEqual(self.project.manage("migrate", "-v0"), "")

    def test_progress_is_one_line_on_a_terminal(self):
        self.slowly()
        status, output = self.project.on_terminal("migrate", "--no-color")
        self.assertEqual(status, 0)
        self.assertGreater(output.count("\r\x1b[K    table"), 1)
        lines = [line for line in output.split("\n") if "% done" in line]
        self.assertEqual(len(lines), 1, output)

    def test_ctrl_c_ends_in_one_line_and_the_same_command_goes_on(self):
        self.slowly()
        status, output = self.project.on_terminal("migrate", until=FILLED, then=interrupt)
        self.assertEqual(status, 130)
        self.assertRegex(output, r"Interrupted(, [\d.]+% done)?; run the same command to go on\.")
        self.assertNotIn("Traceback", output)
        self.project.wait_until(f"NOT {FILLING}")
        self.assertFalse(self.is_filled())
        self.quickly()
        output = self.project.manage("migrate")
        self.assertNotIn("Traceback", output)
        self.assertTrue(self.is_filled())

    def test_ctrl_c_while_an_index_is_built(self):
        index = "django_safe_backfill.SafeAddField('order', 'code', models.IntegerField(null=True, db_index=True))"
        self.project.migration("0002_fill", index, after="0001_initial")
        with self.project.connect() as session:
            # An index that is built concurrently waits for older transactions.
            building = "EXISTS (SELECT FROM pg_stat_progress_create_index WHERE phase LIKE 'waiting%')"
            column = "EXISTS (SELECT FROM pg_attribute WHERE attname = 'code')"
            session.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            session.execute("SELECT count(*) FROM pg_class")
            status, output = self.project.on_terminal("migrate", until=f"{column} AND {building}", then=interrupt)
            session.execute("ROLLBACK")
        self.assertEqual(status, 130, output)
        self.assertNotIn("Traceback", output)
        self.project.manage("migrate")
        self.assertTrue(
            self.project.value("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'shop_order'::regclass")
        )

    def test_after_a_kill_the_same_command_goes_on(self):
        self.slowly()
        self.project.on_terminal("migrate", until=FILLED, then=kill)
        status, output = self.project.try_to_manage("migrate")
        if status != 0:
            # The server has not noticed yet, or fills its last batch.
            self.assertNotIn("Traceback", output)
            self.assertRegex(output, "\nSafeMigrationError: another session is working")
        self.project.wait_until(f"NOT {FILLING}")
        self.quickly()
        self.project.manage("migrate", "-v0")
        self.assertTrue(self.is_filled())

    def test_a_run_elsewhere_is_told_without_a_traceback(self):
        self.slowly()
        first = self.project.start("migrate")
        self.project.wait_until(FILLED)
        status, output = self.project.try_to_manage("migrate")
        first.communicate(timeout=60)
        self.assertEqual(status, 1)
        self.assertNotIn("Traceback", output)
        self.assertRegex(output, "\nSafeMigrationError: another session is working")

    def test_rows_that_are_null_still_fail_the_migration(self):
        self.project.sql(
            "CREATE FUNCTION undo() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.status = NULL; RETURN new; END$$;"
            "CREATE TRIGGER undo BEFORE UPDATE ON shop_order FOR EACH ROW WHEN (old.total = 5) EXECUTE FUNCTION undo()"
        )
        status, output = self.project.try_to_manage("migrate")
        self.assertEqual(status, 1)
        self.assertIn('1 row of table "shop_order" is still null', output)
        self.assertIn("[ ] 0002_fill", self.project.manage("showmigrations", "shop"))
        self.project.sql("DROP TRIGGER undo ON shop_order")
        self.project.manage("migrate")

    def test_an_atomic_migration_is_refused_before_it_begins(self):
        self.project.migration("0002_fill", FILL, after="0001_initial", atomic=True)
        status, output = self.project.try_to_manage("migrate")
        self.assertEqual(status, 1)
        self.assertIn("safe_backfill.E001", output)
        self.assertIn("Set atomic = False", output)
        self.assertFalse(self.is_filled())

    def test_a_safe_operation_beside_others_is_refused(self):
        both = f"migrations.AddField('order', 'x', models.IntegerField(null=True)), {FILL}"
        self.project.migration("0002_fill", both, after="0001_initial")
        status, output = self.project.try_to_manage("check")
        self.assertEqual(status, 1)
        self.assertIn("safe_backfill.E002", output)
        nested = f"migrations.SeparateDatabaseAndState(database_operations=[{both}])"
        self.project.migration("0002_fill", nested, after="0001_initial")
        self.assertIn("safe_backfill.E002", self.project.try_to_manage("check")[1])
        twice = (
            "django_safe_backfill.SafeAddField('order', 'x', models.IntegerField(null=True)),"
            "django_safe_backfill.SafeAlterField('order', 'x', models.IntegerField(null=True, unique=True))"
        )
        self.project.migration("0002_fill", twice, after="0001_initial")
        self.assertIn("safe_backfill.E002", self.project.try_to_manage("check")[1])
        all_steps = (
            "django_safe_backfill.SafeAddField('order', 'x', models.IntegerField(null=True)),"
            "django_safe_backfill.SafeBackfill('order', 'x', 1),"
            "django_safe_backfill.SafeSetNotNull('order', 'x', models.IntegerField())"
        )
        self.project.migration("0002_fill", all_steps, after="0001_initial")
        self.project.manage("check")
        beside_state = f"migrations.SeparateDatabaseAndState(state_operations=[]), {FILL}"
        self.project.migration("0002_fill", beside_state, after="0001_initial")
        self.project.manage("check")

    def test_a_migration_that_cannot_be_loaded_is_told_by_django(self):
        self.project.write("shop/migrations/0003_bad.py", "import nothing_of_that_name")
        status, output = self.project.try_to_manage("check")
        self.assertEqual((status, "nothing_of_that_name" in output), (0, False), output)
        self.assertIn("nothing_of_that_name", self.project.try_to_manage("migrate")[1])

    def test_settings_are_checked(self):
        with (self.project.folder / "settings.py").open("a") as file:
            file.write('SAFE_BACKFILL = {"LOCK_TIMEOUT": 0}\n')
        status, output = self.project.try_to_manage("check")
        self.assertEqual(status, 1)
        self.assertIn("safe_backfill.E003", output)
        # PostgreSQL would take it for none.
        with self.assertRaises(ImproperlyConfigured):
            Conf(LOCK_TIMEOUT="0.4ms")

    def test_it_can_be_faked_and_shown(self):
        self.assertRegex(self.project.manage("sqlmigrate", "shop", "0002"), r'CALL "public"\.safe_backfill\(')
        self.project.manage("migrate", "--fake")
        self.assertFalse(self.is_filled())
        self.project.migration(
            "0003_not_null",
            "django_safe_backfill.SafeAddNotNullField('order', 'code', models.CharField(max_length=9), backfill='x'),"
            "django_safe_backfill.SafeAlterField('order', 'total', models.IntegerField(default=1, db_index=True))",
            after="0002_fill",
        )
        self.project.migration(
            "0004_set_not_null",
            "django_safe_backfill.SafeSetNotNull('order', 'status', models.CharField(max_length=20))",
            after="0003_not_null",
        )
        columns = "SELECT array_agg(attname || attnotnull) FROM pg_attribute WHERE attrelid = 'shop_order'::regclass"
        before = self.project.value(columns)
        shown = self.project.manage("sqlmigrate", "shop", "0003") + self.project.manage("sqlmigrate", "shop", "0004")
        for part in 'ADD COLUMN "code"', "CREATE INDEX CONCURRENTLY", "CALL", "safe_set_not_null(":
            self.assertIn(part, shown)
        unique = "django_safe_backfill.SafeAlterField('order', 'total', models.IntegerField(unique=True))"
        self.project.migration("0005_unique", unique, after="0004_set_not_null")
        self.assertEqual(self.project.manage("sqlmigrate", "shop", "0005").count("CREATE UNIQUE INDEX"), 1)
        self.project.manage("migrate", "--fake")
        self.assertEqual(self.project.value(columns), before)
        self.assertNotIn("[ ]", self.project.manage("showmigrations", "shop"))
        self.project.manage("migrate", "shop", "0001", "--fake")
        self.project.manage("migrate", "shop", "0002")
        self.assertTrue(self.is_filled())

    def test_the_database_of_the_tests_needs_the_extension_from_a_migration(self):
        self.project.migration(
            "0001_initial",
            "__import__('django.contrib.postgres.operations').contrib.postgres.operations"
            f".CreateExtension('pg_safe_backfill'), migrations.CreateModel('Order', [{FIELDS}])",
            atomic=True,
        )
        self.project.write(
            "shop/tests.py", "from django.test import TestCase\nclass T(TestCase):\n def test(self): pass\n"
        )
        output = self.project.manage("test", "--no-input")
        self.assertIn("OK", output)
        self.assertNotIn("filled", output)


class WithTimeoutsTest(MigrateTest):
    """The same with options that would end a fill, and with parameters that the server binds."""

    options = {  # noqa: RUF012
        "options": "-c statement_timeout=200ms -c lock_timeout=100ms -c idle_in_transaction_session_timeout=150ms",
        "server_side_binding": True,
    }

    def test_they_do_not_end_it(self):
        self.slowly()
        began = time.monotonic()
        self.project.manage("migrate")
        self.assertGreater(time.monotonic() - began, 0.2)
        self.assertTrue(self.is_filled())
