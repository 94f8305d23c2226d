"""What squashmigrations makes of the operations, and what the writer makes of their arguments."""

import unittest
import uuid

from django.db import models
from django.db.migrations import AddField, AlterField, CreateModel, Migration, RemoveField, RenameField
from django.db.migrations.optimizer import MigrationOptimizer
from django.db.migrations.writer import MigrationWriter
from django.db.models import Case, F, Q, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Lower

from django_safe_backfill import SafeAddField, SafeAddNotNullField, SafeAlterField, SafeBackfill, SafeSetNotNull

TEXT = models.TextField()
NULL = models.TextField(null=True)


def kinds(*operations):
    return [type(operation) for operation in MigrationOptimizer().optimize(list(operations), "shop")]


class SquashTest(unittest.TestCase):
    def test_what_an_expression_uses_stays_as_long_as_it_is_used(self):
        for last in (RemoveField("order", "email"), RenameField("order", "email", "address")):
            for safe in (
                SafeBackfill("order", "status", Lower("email")),
                SafeBackfill("order", "status", "x", where=Q(email="x")),
                SafeAddNotNullField("order", "status", TEXT, backfill=Lower("email")),
            ):
                with self.subTest(last=last, safe=safe):
                    self.assertEqual(
                        kinds(AddField("order", "email", NULL), safe, last), [AddField, type(safe), type(last)]
                    )

    def test_a_fill_stays_in_its_place(self):
        operations = [SafeAddField("order", "status", NULL), SafeBackfill("order", "status", "x")]
        operations.append(SafeSetNotNull("order", "status", TEXT))
        self.assertEqual(kinds(*operations), [SafeAddField, SafeBackfill, SafeSetNotNull])
        beside = AddField("customer", "name", NULL), SafeBackfill("order", "status", RawSQL("(SELECT name)", []))
        self.assertEqual(kinds(*beside, AlterField("customer", "name", TEXT)), [AddField, SafeBackfill, AlterField])

    def test_a_fill_may_be_left_out(self):
        key = ("id", models.BigAutoField(primary_key=True))
        fill = SafeBackfill("order", "status", "x", elidable=True)
        create, add = CreateModel("Order", [key]), SafeAddField("order", "status", NULL)
        self.assertEqual(kinds(create, add, fill, SafeSetNotNull("order", "status", TEXT)), [CreateModel])
        self.assertEqual(kinds(add, fill, RemoveField("order", "status")), [])


class WriterTest(unittest.TestCase):
    def test_arguments_are_written_and_read_again(self):
        operations = [
            SafeBackfill(
                "order",
                "status",
                RawSQL("lower(%s)", ["x"]),
                where=Q(total=1) & ~Q(id__in=[1, 2]),
                batch_size=5,
                elidable=True,
                hints={"here": True},
            ),
            SafeBackfill("order", "token", uuid.UUID(int=4), method="instant"),
            SafeBackfill("order", "status", Case(When(Q(total=1), then=Value("x")), default=Lower("email"))),
            SafeAddNotNullField("order", "double", models.IntegerField(), False, backfill=F("total") * 2, batch_size=3),
            SafeAddField("order", "status", NULL, batch_size=3),
            SafeAlterField("order", "status", TEXT, False, batch_size=3),
            SafeSetNotNull("order", "status", TEXT),
        ]
        migration = Migration("0001_initial", "shop")
        migration.operations = operations
        text = MigrationWriter(migration).as_string()
        self.assertIn("django_safe_backfill.SafeBackfill(", text)
        written = {}
        exec(text, written)
        again = Migration("0001_initial", "shop")
        again.operations = written["Migration"].operations
        heading = "class Migration"
        self.assertEqual(MigrationWriter(again).as_string().split(heading)[1], text.split(heading)[1])
