"""What the tests of operations have in common: a model with rows, and operations that are run on it."""

import unittest
import unittest.mock
from contextlib import contextmanager

import psycopg
from django.db import connections, models
from django.db.migrations import CreateModel
from django.db.migrations.state import ProjectState

from django_safe_backfill import conf

APP = "shop"
ROWS = 1000


class OperationTestCase(unittest.TestCase):
    """Model `shop.Order` with 1000 rows, which refer to `shop.Customer`, of which there are 10."""

    alias = "default"

    def setUp(self):
        self.state = ProjectState()
        self.before = None
        key = ("id", models.BigAutoField(primary_key=True))
        self.drop()
        self.run_plain(CreateModel("Customer", [key, ("name", models.CharField(max_length=50))]))
        self.run_plain(CreateModel("Order", [key, ("email", models.TextField()), ("total", models.IntegerField())]))
        self.sql(
            "INSERT INTO shop_customer (name) SELECT 'customer ' || i FROM generate_series(1, 10) i;"
            "INSERT INTO shop_order (email, total)"
            f" SELECT 'User' || i || '@Example.com', i FROM generate_series(1, {ROWS}) i"
        )

    def tearDown(self):
        self.drop()
        self.connection.close()

    @property
    def connection(self):
        return connections[self.alias]

    def drop(self):
        self.sql("DROP TABLE IF EXISTS shop_order CASCADE; DROP TABLE IF EXISTS shop_customer CASCADE")

    def sql(self, statement, *values):
        """The rows of a statement, if it has some."""
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else None

    def value(self, statement, *values):
        return self.sql(statement, *values)[0][0]

    def run_plain(self, operation):
        self.apply(operation)

    def apply(self, operation, alias=None):
        """Runs an operation forwards, as `migrate` does in a migration that is not atomic."""
        before, after = self.state, self.state.clone()
        operation.state_forwards(APP, after)
        with connections[alias or self.alias].schema_editor(atomic=False) as editor:
            operation.database_forwards(APP, editor, before, after)
        self.before, self.state = before, after

    def reverse(self, operation):
        """Takes back the operation that was applied last."""
        with self.connection.schema_editor(atomic=False) as editor:
            operation.database_backwards(APP, editor, self.state, self.before)
        self.state = self.before

    def try_again(self, operation):
        """Runs the operation that was applied last once more, as if it had not been recorded."""
        self.state = self.before
        self.apply(operation)

    def column(self, name="status", table="shop_order"):
        """Type, whether it is NOT NULL, and the default."""
        rows = self.sql(
            "SELECT format_type(atttypid, atttypmod), attnotnull, pg_get_expr(adbin, adrelid) FROM pg_attribute"
            " LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum"
            " WHERE attrelid = %s::regclass AND attname = %s AND NOT attisdropped",
            table,
            name,
        )
        return rows[0] if rows else None

    def values(self, name="status"):
        """The values of the column, and how many rows have each."""
        return dict(self.sql(f'SELECT "{name}", count(*) FROM shop_order GROUP BY 1'))

    def constraints(self, table="shop_order"):
        """Kind, definition and validity of each constraint, but for those of every table of Django's."""
        return {
            name: (definition, is_valid)
            for name, definition, is_valid in self.sql(
                "SELECT conname, pg_get_constraintdef(oid), convalidated FROM pg_constraint"
                " WHERE conrelid = %s::regclass AND contype IN ('c', 'f', 'u')",
                table,
            )
        }

    def indexes(self, column="status"):
        """Definition and validity of the indexes that have the column."""
        return self.sql(
            "SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index"
            " JOIN pg_attribute a ON a.attrelid = indrelid AND attnum = ANY (indkey)"
            " WHERE indrelid = 'shop_order'::regclass AND attname = %s ORDER BY 1",
            column,
        )

    def file(self):
        """Another one after a rewrite."""
        return self.value("SELECT pg_relation_filenode('shop_order')")

    @contextmanager
    def session(self):
        """Another session, outside of Django."""
        settings = self.connection.settings_dict
        with psycopg.connect(
            host=settings["HOST"],
            port=settings["PORT"],
            dbname=settings["NAME"],
            user=settings["USER"],
            autocommit=True,
        ) as session:
            yield session

    def impatient(self, **changes):
        """DDL gives up soon."""
        settings = conf.Conf(**{"LOCK_TIMEOUT": "100ms", "ATTEMPTS": 3, "PAUSE": 0.05, **changes})
        return unittest.mock.patch.object(conf, "read", return_value=settings)
