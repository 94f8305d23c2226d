"""The whole walk as a new user would take it, command by command, while a client uses the application."""

import atexit
import os
import signal
import time
import unittest

from private_server import PORT, Server

from tests.client import Client
from tests.project import Project

ROWS = int(os.environ.get("ROWS", 200_000))
DATABASE = "risky_migrations"
# What the README promises of the safe way.
LIMIT = 1.0
# How long updating all rows takes at least, whatever the number of rows and the speed of the machine: it stands for
# the rows, indexes and triggers that a real table has more of, and is the same for both ways.
WORK = 3.0
SLOW_ROWS = 100
# Longer than one attempt of the reverse migration to get its lock.
PATIENCE = 2.0


def setUpModule():
    global server
    # A shell that runs this in the background has Ctrl-C ignored, in all child processes too.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    server = Server()
    server.start()
    # Unlike a module cleanup, this is done after Ctrl-C as well.
    atexit.register(server.stop)


class Walkthrough(unittest.TestCase):
    def setUp(self):
        server.create_database(DATABASE)
        self.project = Project(
            DATABASE_HOST=server.folder,
            DATABASE_PORT=str(PORT),
            DATABASE_NAME=DATABASE,
            DATABASE_USER="postgres",
            MIGRATION_WAY="safe",
        )
        self.addCleanup(self.project.remove)
        self.database = server.connect(DATABASE)
        self.addCleanup(self.database.close)
        self.manage("migrate", "demoapp", "0001")
        self.manage("seed_large_table", f"--large-count={ROWS}")

    def manage(self, *arguments, **environment):
        return self.project.manage(*arguments, **environment)

    def query(self, sql):
        return self.database.execute(sql).fetchone()[0]

    def filled(self):
        return self.query("SELECT count(status) FROM large_user")

    def is_not_null(self):
        return self.query(
            "SELECT attnotnull FROM pg_attribute WHERE attrelid = 'large_user'::regclass AND attname = 'status'"
        )

    def has_status(self):
        return self.query(
            "SELECT count(*) = 2 FROM pg_attribute WHERE attname = 'status' AND NOT attisdropped "
            "AND attrelid IN ('small_user'::regclass, 'large_user'::regclass)"
        )

    def make_updates_slow(self):
        self.database.execute(
            f"""
            CREATE FUNCTION work() RETURNS trigger LANGUAGE plpgsql AS
            $$ BEGIN PERFORM pg_sleep({WORK / SLOW_ROWS}); RETURN new; END $$;
            CREATE TRIGGER work BEFORE UPDATE ON large_user FOR EACH ROW
            WHEN (old.id % {max(ROWS // SLOW_ROWS, 1)} = 0) EXECUTE FUNCTION work();
            """
        )

    def start_backfill(self):
        """Starts step 2 and returns its process as soon as some rows are filled."""
        self.make_updates_slow()
        self.manage("migrate", "demoapp", "0002")
        process = self.project.start("migrate", "demoapp", "0003")
        self.wait_until(lambda: self.filled() > 0)
        self.assertIsNone(process.poll(), "it was done before it could be stopped")
        return process

    def wait_until(self, condition):
        deadline = time.monotonic() + 30
        while not condition():
            self.assertLess(time.monotonic(), deadline, "it took too long")
            time.sleep(0.05)

    def assert_applied(self, *expected):
        lines = self.manage("migrate", "--list").splitlines()
        applied = [line.split()[-1][:4] for line in lines if "[X]" in line]
        self.assertEqual(applied, list(expected))

    def assert_done(self):
        self.assertTrue(self.is_not_null())
        self.assertEqual(self.query("SELECT count(*) FROM large_user WHERE status = 'active'"), ROWS)


class SafeWay(Walkthrough):
    def test_application_answers_at_every_step(self):
        self.make_updates_slow()
        self.assert_applied("0001")
        with self.project.serving() as address, Client(address) as client:
            self.assertNotIn("status", client.get()["users"][0])

            self.manage("migrate", "demoapp", "0002")
            self.assertIsNone(client.get()["users"][0]["status"])
            self.assertEqual(self.filled(), 0)

            output = self.manage("migrate", "demoapp", "0003")
            self.assertIn(f'filled {ROWS} rows of table "large_user"', output)
            self.assertEqual(client.get()["users"][0]["status"], "active")

            self.manage("migrate", "demoapp", "0004")
        print(f"\nsafe way: {len(client.seconds)} requests, the longest took {client.longest:.3f} s")
        self.assertEqual(client.failures, [])
        self.assertLess(client.longest, LIMIT)
        self.assertGreater(len(client.seconds), WORK / LIMIT)
        self.assert_done()
        self.assert_applied("0001", "0002", "0003", "0004")

    def test_third_way_writes_no_row(self):
        step = "demoapp/migrations/0003_backfill_status_field.py"
        self.project.edit(
            step,
            '"LargeUser", "status", "active", batch_size=10000',
            '"LargeUser", "status", "active", method="instant"',
        )
        self.manage("migrate", "demoapp", "0002")
        size = self.query("SELECT pg_relation_size('large_user')")
        output = self.manage("migrate", "demoapp", "0003")
        self.assertIn('rows of table "large_user" that lacked column "status" have the value now', output)
        self.assertEqual(self.filled(), ROWS)
        self.assertEqual(self.query("SELECT pg_relation_size('large_user')"), size)
        self.manage("migrate")
        self.assert_done()

    def test_all_steps_at_once(self):
        self.manage("migrate")
        self.assert_done()
        self.assertIn("No changes detected", self.manage("makemigrations", "--check"))

    def test_old_release_inserts_meanwhile(self):
        insert = "INSERT INTO large_user (name) VALUES ('late') RETURNING status"
        self.manage("migrate", "demoapp", "0002")
        self.assertIsNone(self.query(insert))
        self.manage("migrate", "demoapp", "0003")
        self.assertEqual(self.filled(), ROWS + 1)
        self.assertIsNone(self.query(insert))
        self.manage("migrate")
        self.assertTrue(self.is_not_null())
        self.assertEqual(self.query(insert), "active")

    def test_there_and_back_again(self):
        for _ in range(2):
            self.manage("migrate")
            self.assert_done()
            self.manage("migrate", "demoapp", "0001")
            self.assertFalse(self.has_status())
            self.assert_applied("0001")

    def test_back_again_one_by_one(self):
        self.manage("migrate")
        self.manage("migrate", "demoapp", "0003")
        self.assertFalse(self.is_not_null())
        self.manage("migrate", "demoapp", "0002")
        self.assertEqual(self.filled(), ROWS)
        self.manage("migrate", "demoapp", "0001")
        self.assertFalse(self.has_status())

    def test_others_are_let_through_while_one_holds_the_table(self):
        self.manage("migrate")
        with self.project.serving() as address, Client(address) as client, server.connect(DATABASE) as holder:
            holder.execute("BEGIN")
            holder.execute("SELECT FROM large_user LIMIT 1")
            process = self.project.start("migrate", "demoapp", "0001")
            time.sleep(2 * PATIENCE)
            self.assertIsNone(process.poll())
            holder.execute("COMMIT")
            process.communicate(timeout=30)
        self.assertEqual(process.returncode, 0)
        self.assertFalse(self.has_status())
        self.assertLess(client.longest, PATIENCE)

    def test_value_of_each_row(self):
        step = "demoapp/migrations/0003_backfill_status_field.py"
        self.project.edit(
            step,
            "from django.db import migrations\n",
            "from django.db import migrations\nfrom django.db.models import Q, Value\n"
            "from django.db.models.functions import Concat, Right\n",
        )
        self.project.edit(
            step,
            'SafeBackfill("LargeUser", "status", "active", batch_size=10000)',
            'SafeBackfill("LargeUser", "status", Concat(Value("%"), Right("name", 1)), where=Q(id__iregex="[13579]$"))',
        )
        self.manage("migrate", "demoapp", "0003")
        self.assertEqual(self.filled(), ROWS // 2)
        self.assertEqual(self.query("SELECT status FROM large_user WHERE id = 3"), "%3")

    def test_operator_looks_on(self):
        process = self.start_backfill()
        self.assertEqual(
            self.query("SELECT state FROM safe_backfill_progress WHERE table_name = 'large_user'::regclass"), "filling"
        )
        process.communicate(timeout=30)
        self.assertEqual(
            self.query("SELECT state FROM safe_backfill_progress WHERE table_name = 'large_user'::regclass"),
            "completed",
        )

    def test_sql_is_shown(self):
        sql = "".join(self.manage("sqlmigrate", "demoapp", step) for step in ("0002", "0003", "0004"))
        self.assertIn('ALTER TABLE "large_user" ADD COLUMN "status" varchar(20) NULL', sql)
        self.assertIn("CALL \"public\".safe_backfill('\"large_user\"', 'status', 'active', batch_size => 10000", sql)
        self.assertIn("CALL \"public\".safe_set_not_null('\"large_user\"', 'status');", sql)
        self.assertFalse(self.has_status())


class RiskyWay(Walkthrough):
    def test_application_waits(self):
        self.make_updates_slow()
        self.project.environment["MIGRATION_WAY"] = "risky"
        with self.project.serving() as address, Client(address) as client:
            self.manage("migrate")
        print(f"\nrisky way: {len(client.seconds)} requests, the longest took {client.longest:.3f} s")
        self.assertGreater(client.longest, LIMIT)
        self.assert_done()
        self.assertIn("No changes detected", self.manage("makemigrations", "--check"))
        self.manage("migrate", "demoapp", "0001")
        self.assertFalse(self.has_status())


class Interruption(Walkthrough):
    def test_ctrl_c(self):
        process = self.start_backfill()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        self.assertNotEqual(process.returncode, 0)
        self.assert_resumes()

    def test_kill(self):
        process = self.start_backfill()
        process.kill()
        process.communicate(timeout=30)
        # The server notices by itself that nobody is there any more.
        self.wait_until(
            lambda: self.query("SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE 'CALL %safe_backfill%'")
        )
        self.assert_resumes()

    def assert_resumes(self):
        before = self.filled()
        self.assertTrue(0 < before < ROWS, f"{before} rows are filled")
        self.assert_applied("0001", "0002")
        output = self.manage("migrate", "demoapp", "0003")
        self.assertIn(f"{ROWS - before} ", output)
        self.assertEqual(self.filled(), ROWS)
        self.manage("migrate")
        self.assert_done()


class OwnMigrations(Walkthrough):
    """Writing the three steps oneself, from a model that has no status yet."""

    STATUS = '    status = models.CharField(max_length=20, db_default="active")\n'
    NULLABLE = "    status = models.CharField(max_length=20, null=True, blank=True)\n"
    BACKFILL = 'SafeBackfill("LargeUser", "status", "active"), SafeBackfill("SmallUser", "status", "active")'

    def test_three_steps(self):
        self.project.delete("demoapp/migrations/000[234]_*.py")
        self.project.edit("demoapp/models.py", self.STATUS, "")
        self.assertIn("No changes detected", self.manage("makemigrations"))

        self.project.edit(
            "demoapp/models.py",
            "    class Meta:\n        abstract",
            self.NULLABLE + "\n    class Meta:\n        abstract",
        )
        self.manage("makemigrations")
        self.manage("migrate")
        self.assertEqual(self.filled(), 0)

        self.manage("makemigrations", "--empty", "demoapp", "--name", "backfill_status_field")
        step = "demoapp/migrations/0003_backfill_status_field.py"
        self.project.edit(
            step,
            "from django.db import migrations\n",
            "from django.db import migrations\nfrom django_safe_backfill import SafeBackfill\n",
        )
        self.project.edit(step, "    operations = [", f"    operations = [{self.BACKFILL}")
        status, output = self.project.try_to_manage("migrate")
        self.assertNotEqual(status, 0)
        self.assertIn("Set atomic = False in the migration", output)
        self.assertEqual(self.filled(), 0)
        self.project.edit(step, "    dependencies", "    atomic = False\n    dependencies")
        self.manage("migrate")
        self.assertEqual(self.filled(), ROWS)

        self.project.edit("demoapp/models.py", self.NULLABLE, self.STATUS)
        self.manage("makemigrations")
        self.assertIn('CALL "public".safe_set_not_null', self.manage("sqlmigrate", "demoapp", "0004"))
        self.manage("migrate")
        self.assert_done()


class WrongUse(Walkthrough):
    def test_atomic_migration(self):
        for step in "0002_add_status", "0003_backfill_status_field", "0004_require_status":
            self.project.edit(f"demoapp/migrations/{step}.py", "atomic = False", "atomic = True")
            status, output = self.project.try_to_manage("migrate", "demoapp", step)
            self.assertNotEqual(status, 0)
            self.assertIn("Set atomic = False in the migration", output)
            self.project.edit(f"demoapp/migrations/{step}.py", "atomic = True", "atomic = False")
            self.manage("migrate", "demoapp", step)

    def test_rows_without_a_status_get_the_default_before_not_null(self):
        step = "demoapp/migrations/0003_backfill_status_field.py"
        self.project.edit(step, '        SafeBackfill("LargeUser", "status", "active", batch_size=10000),\n', "")
        self.manage("migrate")
        self.assert_done()

    def test_column_with_an_index(self):
        self.project.edit("demoapp/migrations/0002_add_status.py", "null=True", "null=True, db_index=True")
        self.manage("migrate", "demoapp", "0002")
        self.assertTrue(self.has_status())
        self.assertEqual(self.query("SELECT count(*) FROM pg_indexes WHERE indexdef LIKE '%(status%'"), 4)


if __name__ == "__main__":
    unittest.main()
