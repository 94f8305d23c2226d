import os
import unittest

from tests.project import ALL, Project

BEFORE = """
    class Customer(models.Model):
        name = models.CharField(max_length=50)

    class Order(models.Model):
        customer = models.ForeignKey(Customer, models.CASCADE)
        total = models.IntegerField(default=0)
"""
ROWS = """
    INSERT INTO shop_customer (name) VALUES ('x');
    INSERT INTO shop_order (customer_id, total) SELECT 1, generate_series(1, 500)
"""


class MakemigrationsTest(unittest.TestCase):
    applications = ALL

    def setUp(self):
        self.project = Project(os.environ["SAFE_BACKFILL_HOST"], self.applications)
        self.addCleanup(self.project.remove)
        self.project.models(BEFORE)
        self.project.manage("makemigrations")
        self.project.manage("migrate", "-v0")
        self.project.sql(ROWS)

    def change(self, *fields, more="", arguments=(), answers=""):
        """The migrations that are made when the order gets these fields, and what is printed."""
        before = self.project.migrations()
        self.project.models(BEFORE + "".join(f"        {field}\n" for field in fields) + more)
        output = self.project.manage("makemigrations", *arguments, answers=answers)
        return [name for name in self.project.migrations() if name not in before], output

    def test_an_initial_migration_is_djangos(self):
        text = self.project.text("0001_initial")
        self.assertNotIn("safe", text)
        self.assertNotIn("atomic", text)

    def test_rows_get_what_djangos_operation_gives_them(self):
        names, output = self.change(
            "paid = models.BooleanField(null=True, default=False)",
            "channel = models.CharField(max_length=9, null=True, db_default='web')",
        )
        self.assertEqual(len(names), 1)
        self.assertIn("(SafeAddField)", output)
        self.assertIn("Safe operations took the place of Django's own", output)
        for name in names:
            self.assertIn("    atomic = False\n", self.project.text(name))
        self.project.manage("migrate")
        self.assertEqual(self.project.sql("SELECT DISTINCT paid, channel FROM shop_order"), [(False, "web")])
        self.assertIn("No changes detected", self.project.manage("makemigrations", "--check"))

    def test_the_usual_edit(self):
        self.change("status = models.CharField(max_length=10, null=True)")
        self.project.manage("migrate", "-v0")
        names, _ = self.change("status = models.CharField(max_length=20, default='active')")
        self.assertIn("SafeAlterField", self.project.text(*names))
        self.project.manage("migrate", "-v0")
        self.assertEqual(self.project.sql("SELECT DISTINCT status FROM shop_order"), [("active",)])

    def test_a_change_that_locks_the_table_is_safe_and_one_that_does_not_is_djangos(self):
        self.change("status = models.CharField(max_length=10, null=True)")
        names, _ = self.change("status = models.CharField(max_length=10, null=True, db_default='x')")
        self.assertIn("SafeAlterField", self.project.text(*names))
        names, _ = self.change(
            "status = models.CharField('Status', max_length=10, null=True, db_default='x', default='x')"
        )
        self.assertIn("migrations.AlterField", self.project.text(*names))
        self.project.manage("migrate", "-v0")
        self.assertEqual(self.project.sql("SELECT DISTINCT status FROM shop_order"), [(None,)])

    def test_a_safe_operation_is_in_a_migration_of_its_own(self):
        names, _ = self.change(
            "status = models.CharField(max_length=10, default='x')",
            "label = models.ForeignKey('Label', models.CASCADE, null=True)",
            more="\n    class Label(models.Model):\n        text = models.TextField()\n",
        )
        self.assertEqual([name[:4] for name in names], ["0002", "0003"])
        texts = [self.project.text(name) for name in names]
        plain, safe = texts
        self.assertEqual(safe.count("atomic = False"), 1)
        self.assertEqual((safe.count("SafeAddField("), safe.count("SafeAddNotNullField(")), (1, 1))
        self.assertIn("CreateModel", plain)
        self.assertNotIn("atomic", plain)
        self.project.manage("check")
        self.project.manage("migrate", "-v0")
        self.project.manage("migrate", "shop", "0001", "-v0")
        self.project.manage("migrate", "-v0")

    def test_the_answer_at_the_prompt_is_put_into_the_rows(self):
        names, _ = self.change("status = models.CharField(max_length=10)", answers="1\n'asked'\n")
        self.assertIn("SafeAddNotNullField", self.project.text(*names))
        self.project.manage("migrate", "-v0")
        self.assertEqual(self.project.sql("SELECT DISTINCT status FROM shop_order"), [("asked",)])
        self.change("status = models.CharField(max_length=10)", "code = models.IntegerField(null=True)")
        self.project.manage("migrate", "-v0")
        self.change(
            "status = models.CharField(max_length=10)",
            "code = models.IntegerField()",
            answers="1\n7\n",
        )
        self.project.manage("migrate", "-v0")
        self.assertEqual(self.project.sql("SELECT DISTINCT code FROM shop_order"), [(7,)])

    def test_a_dry_run_shows_all(self):
        self.project.models(BEFORE + "        status = models.IntegerField(null=True)\n")
        output = self.project.manage("makemigrations", "--dry-run", "-v3")
        self.assertIn("    atomic = False\n", output)
        self.assertEqual(self.project.migrations(), ["0001_initial"])

    def test_names_and_updates(self):
        names, _ = self.change("status = models.IntegerField(null=True)", arguments=["--name", "mine"])
        self.assertEqual(names, ["0002_mine"])
        self.project.models(
            BEFORE + "        status = models.IntegerField(null=True)\n        code = models.IntegerField(null=True)\n"
        )
        self.project.manage("makemigrations", "--update")
        self.assertIn("migrations.AddField", self.project.text(self.project.migrations()[-1]))

    def test_what_has_no_safe_operation_is_djangos(self):
        names, output = self.change(
            "customers = models.ManyToManyField(Customer, related_name='many')",
        )
        self.assertIn("migrations.AddField", self.project.text(*names))
        self.assertNotIn("Safe operations", output)

    def test_a_squashed_migration_creates_the_table_whole(self):
        self.change("status = models.CharField(max_length=10, null=True)")
        self.project.migration(
            "0003_fill",
            "django_safe_backfill.SafeBackfill('order', 'status', 'x', elidable=True)",
            after=self.project.migrations()[-1],
        )
        self.change("status = models.CharField(max_length=10)", answers="2\n")
        self.project.manage("squashmigrations", "shop", "0004", "--no-input")
        squashed = next(name for name in self.project.migrations() if "squashed" in name)
        self.assertNotIn("Safe", self.project.text(squashed))
        self.project.manage("check")

    def test_a_squashed_migration_that_keeps_a_safe_operation_is_told(self):
        self.change("status = models.CharField(max_length=10, null=True)")
        self.project.migration(
            "0003_fill",
            "django_safe_backfill.SafeBackfill('order', 'status', 'x')",
            after=self.project.migrations()[-1],
        )
        self.project.manage("squashmigrations", "shop", "0002", "0003", "--no-input")
        status, output = self.project.try_to_manage("check")
        self.assertEqual(status, 1)
        self.assertIn("safe_backfill.E001", output)
        # As the check says.
        squashed = next(name for name in self.project.migrations() if "squashed" in name)
        text = self.project.text(squashed)
        self.project.write(
            f"shop/migrations/{squashed}.py", text.replace("    operations", "    atomic = False\n\n    operations")
        )
        self.project.manage("check")
        self.project.manage("migrate", "shop", "zero", "-v0")
        self.project.manage("migrate", "-v0")
        self.assertEqual(
            self.project.value(
                "SELECT count(*) FROM pg_attribute WHERE attname = 'status' AND attrelid = 'shop_order'::regclass"
            ),
            1,
        )
        self.assertIn("(2 squashed migrations)", self.project.manage("showmigrations", "shop"))


class DjangosTest(unittest.TestCase):
    def project(self, *arguments, **options):
        """A project in which a model has got another field."""
        project = Project(os.environ["SAFE_BACKFILL_HOST"], *arguments, **options)
        self.addCleanup(project.remove)
        project.models(BEFORE)
        project.manage("makemigrations")
        project.models(BEFORE + "        status = models.IntegerField(null=True)\n")
        project.manage("makemigrations")
        return project

    def test_without_request_makemigrations_is_djangos(self):
        project = self.project('"django_safe_backfill",')
        self.assertNotIn("safe", project.text(project.migrations()[-1]))

    def test_on_sqlite_makemigrations_is_djangos(self):
        more = 'DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "db.sqlite3"}}'
        project = self.project(more=more)
        self.assertNotIn("safe", project.text(project.migrations()[-1]))
        project.manage("migrate", "-v0")
