"""Every operation is killed at each of its statements and run again; then the table is as after Django's operation."""

import re

from django.contrib.postgres.functions import RandomUUID
from django.db import models
from django.db.migrations import AddField, AlterField
from django.db.models import F
from django.db.models.functions import Upper

from django_safe_backfill import SafeAddField, SafeAddNotNullField, SafeAlterField, SafeBackfill, SafeSetNotNull
from tests.operations import ROWS, OperationTestCase

PLAIN_INDEX = re.compile(r'CREATE (UNIQUE )?INDEX (?!CONCURRENTLY)(?:IF NOT EXISTS )?"(\w+)" ON "shop_order"')


class Killed(BaseException):
    """The process has ended, as far as operations can tell."""


class Killer:
    """Ends the process at the statement of a number that changes something: before it is sent, or after it was run."""

    def __init__(self, number, is_after):
        self.number = number
        self.is_after = is_after
        self.is_dead = False

    def __call__(self, execute, sql, values, many, context):
        if self.is_dead:
            raise Killed
        if str(sql).startswith("SELECT"):
            return execute(sql, values, many, context)
        self.number -= 1
        self.is_dead = self.number == 0
        if self.is_dead and not self.is_after:
            raise Killed
        result = execute(sql, values, many, context)
        if self.is_dead:
            raise Killed
        return result


def customer(**options):
    return models.ForeignKey("shop.Customer", models.CASCADE, **options)


ADDED = {
    "null": models.CharField(max_length=9, null=True),
    "default": models.IntegerField(null=True, default=7),
    "database default": models.CharField(max_length=9, null=True, db_default="web"),
    "volatile": models.UUIDField(null=True, db_default=RandomUUID(), unique=True),
    "index": models.CharField(max_length=9, null=True, db_index=True),
    "check": models.PositiveIntegerField(null=True, default=1, db_comment="of it"),
    "foreign key": customer(null=True),
    "one to one": models.OneToOneField("shop.Customer", models.CASCADE, null=True),
    "tables": models.ManyToManyField("shop.Customer"),
    "not null": models.SlugField(default="x"),
    "not null key": customer(default=3),
    "not null volatile": models.UUIDField(db_default=RandomUUID(), unique=True),
}
ALTERED = {
    "not null": (models.CharField(max_length=9, null=True), models.CharField(max_length=9, default="x")),
    "null": (models.CharField(max_length=9, default="x", db_index=True), models.CharField(max_length=9, null=True)),
    "database default": (models.IntegerField(null=True), models.IntegerField(db_default=3, db_index=True)),
    "unique": (models.CharField(max_length=9, null=True), models.CharField(max_length=9, null=True, unique=True)),
    "check": (models.IntegerField(null=True), models.PositiveIntegerField(default=3)),
    "foreign key": (models.BigIntegerField(null=True, db_column="status_id"), customer(default=3)),
    "of a key": (customer(null=True), customer(default=3)),
    "one to one": (customer(null=True), models.OneToOneField("shop.Customer", models.CASCADE, null=True)),
    "slug": (models.SlugField(null=True), models.SlugField(null=True, unique=True)),
    "indexed twice": (models.SlugField(null=True, db_index=False, unique=True), models.SlugField(null=True)),
}


class ResumeTest(OperationTestCase):
    def table(self):
        """What a table is, but for names that PostgreSQL makes for Django's AddField."""
        columns = self.sql(
            "SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod), attnotnull,"
            " pg_get_expr(adbin, adrelid), attcollation, col_description(attrelid, attnum) FROM pg_attribute"
            " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
            " WHERE attrelid::regclass::text LIKE 'shop%%' AND attnum > 0 AND NOT attisdropped"
            " AND attrelid IN (SELECT oid FROM pg_class WHERE relkind = 'r') AND %s ORDER BY 1, 2",
            True,
        )
        constraints = self.sql(
            "SELECT CASE WHEN contype IN ('c', 'u') THEN '' ELSE conname END, conrelid::regclass::text,"
            " pg_get_constraintdef(oid), convalidated FROM pg_constraint"
            " WHERE contype IN ('c', 'f', 'p', 'u') AND conrelid::regclass::text LIKE 'shop%%' AND %s ORDER BY 1, 2, 3",
            True,
        )
        indexes = self.sql(
            "SELECT regexp_replace(pg_get_indexdef(indexrelid), '^(CREATE UNIQUE INDEX) [^ ]+', '\\1'), indisvalid"
            " FROM pg_index WHERE indrelid::regclass::text LIKE 'shop%%' AND %s ORDER BY 1",
            True,
        )
        return columns, constraints, indexes

    def filled(self, column):
        """How many rows have a value, and how many values there are."""
        if self.column(column) is None:
            return None
        return self.sql(f"SELECT count({column}), count(DISTINCT {column}) FROM shop_order")[0]

    def found(self):
        return self.table(), self.filled("status"), self.filled("status_id")

    def apply(self, operation, alias=None):
        if not operation.__module__.startswith("django_safe_backfill"):
            return super().apply(operation, alias)
        with self.connection.execute_wrapper(self.harmless):
            return super().apply(operation, alias)

    def harmless(self, execute, sql, values, many, context):
        """No index is built, and no constraint proven, under a lock that keeps others waiting."""
        plain = PLAIN_INDEX.match(str(sql))
        if plain:
            self.assertIn("IF NOT EXISTS", str(sql))
            self.assertIsNotNone(self.value("SELECT to_regclass(%s)::text", plain[2]), sql)
        if str(sql).startswith('ALTER TABLE "shop_order" ADD CONSTRAINT'):
            self.assertRegex(str(sql), "NOT VALID|USING INDEX")
        return execute(sql, values, many, context)

    def prepared(self, *before):
        self.tearDown()
        self.setUp()
        self.sql("DROP TABLE IF EXISTS shop_order_status")
        for operation in before:
            self.apply(operation)

    def expected(self, plain, before):
        self.prepared(*before)
        untouched = self.found()
        self.apply(plain)
        return untouched, self.found()

    def killed_everywhere(self, safe, before, expected, *, is_reverse=False):
        """Kills the operation at each statement, and compares what there is when it was run again."""
        deaths = 0
        for is_after in (False, True):
            number = 1
            while True:
                self.prepared(*before)
                if is_reverse:
                    self.apply(safe)
                killer = Killer(number, is_after)
                last = self.state, self.before
                try:
                    with self.connection.execute_wrapper(killer):
                        (self.reverse if is_reverse else self.apply)(safe)
                except Killed:
                    self.connection.close()
                    deaths += 1
                # Where it was not killed, it ended just before it was recorded.
                self.state, self.before = last
                (self.reverse if is_reverse else self.apply)(safe)
                with self.subTest(statement=number, is_after=is_after, is_reverse=is_reverse):
                    self.assertEqual(self.found(), expected)
                if not killer.is_dead:
                    break
                number += 1
        self.assertGreater(deaths, 1)

    def both_ways(self, plain, safe, *before):
        untouched, expected = self.expected(plain, before)
        self.killed_everywhere(safe, before, expected)
        self.killed_everywhere(safe, before, untouched, is_reverse=True)

    def test_adding(self):
        for title, field in ADDED.items():
            with self.subTest(field=title):
                is_null = field.null or field.many_to_many
                kind = SafeAddField if is_null else SafeAddNotNullField
                self.both_ways(AddField("order", "status", field), kind("order", "status", field))

    def test_altering(self):
        for title, (old, new) in ALTERED.items():
            with self.subTest(field=title):
                plain, safe = (kind("order", "status", new) for kind in (AlterField, SafeAlterField))
                before = [AddField("order", "status", old)]
                (table, *_), expected = self.expected(plain, before)
                self.killed_everywhere(safe, before, expected)
                # What was filled stays.
                self.killed_everywhere(safe, before, (table, *expected[1:]), is_reverse=True)

    def test_a_column_with_an_index_becomes_text(self):
        before = [AddField("order", "status", models.SlugField(null=True))]
        plain, safe = (
            kind("order", "status", models.TextField(null=True, db_index=True)) for kind in (AlterField, SafeAlterField)
        )
        _, expected = self.expected(plain, before)
        self.killed_everywhere(safe, before, expected)

    def test_adding_with_an_expression(self):
        safe = SafeAddNotNullField("order", "status", models.CharField(max_length=99), backfill=Upper("email"))
        plain = AddField("order", "status", models.CharField(max_length=99, default="x"))
        untouched, (table, _, _) = self.expected(plain, [])
        self.killed_everywhere(safe, [], (table, (ROWS, ROWS), None))
        self.killed_everywhere(safe, [], untouched, is_reverse=True)

    def test_filling_and_not_null(self):
        before = [AddField("order", "status", models.IntegerField(null=True))]
        _, (table, _, _) = self.expected(SafeBackfill("order", "status", F("total")), before)
        self.killed_everywhere(
            SafeBackfill("order", "status", F("total"), batch_size=100), before, (table, (ROWS, ROWS), None)
        )
        before.append(SafeBackfill("order", "status", 4))
        fields = [kind("order", "status", models.IntegerField()) for kind in (AlterField, SafeSetNotNull)]
        self.both_ways(*fields, *before)
