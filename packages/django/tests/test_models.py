"""Models that are not plain: routers, schemas, inheritance, custom fields."""

from django.db import models
from django.db.migrations import CreateModel
from django.test import override_settings

from django_safe_backfill import SafeAddField, SafeAddNotNullField, SafeAlterField, SafeBackfill, SafeSetNotNull
from tests.operations import ROWS, OperationTestCase


class Nowhere:
    """A router that has nothing migrated, but where a hint says so."""

    def allow_migrate(self, db, app_label, model_name=None, **hints):
        return hints.get("here", self.allows)

    allows = False


class Shouting(models.CharField):
    """Stores upper case and shows lower case."""

    def get_prep_value(self, value):
        return value and value.upper()

    def from_db_value(self, value, expression, connection):
        return value and value.lower()


class ModelsTest(OperationTestCase):
    def test_a_router_may_refuse(self):
        with override_settings(DATABASE_ROUTERS=[Nowhere()]):
            for operation in (
                SafeAddField("order", "status", models.TextField(null=True)),
                SafeBackfill("order", "email", "x"),
                SafeAlterField("order", "email", models.TextField(unique=True)),
                SafeSetNotNull("order", "email", models.TextField()),
                SafeAddNotNullField("order", "kind", models.TextField(), backfill="x"),
            ):
                self.apply(operation)
                self.reverse(operation)
        self.assertEqual((self.column("status"), self.column("kind")), (None, None))
        self.assertEqual(self.constraints(), {})

    def test_hints_are_for_routers(self):
        self.apply(SafeAddField("order", "status", models.TextField(null=True)))
        router = Nowhere()
        router.allows = True
        with override_settings(DATABASE_ROUTERS=[router]):
            self.apply(SafeBackfill("order", "status", "x", hints={"here": False}))
            self.assertEqual(self.values(), {None: ROWS})
            self.apply(SafeBackfill("order", "status", "x", hints={"here": True}))
        self.assertEqual(self.values(), {"x": ROWS})

    def test_a_table_in_another_schema_with_an_odd_name(self):
        self.sql('DROP SCHEMA IF EXISTS "Other" CASCADE; CREATE SCHEMA "Other"')
        self.addCleanup(self.sql, 'DROP SCHEMA "Other" CASCADE')
        key = ("id", models.BigAutoField(primary_key=True))
        self.run_plain(CreateModel("Odd", [key], {"db_table": '"Other"."Odd table"'}))
        self.sql('INSERT INTO "Other"."Odd table" SELECT generate_series(1, 10)')
        add = SafeAddNotNullField("odd", "Status", models.IntegerField(db_index=True, unique=False), backfill=4)
        self.apply(add)
        self.apply(SafeAddField("odd", "code", models.CharField(max_length=5, null=True, unique=True)))
        self.apply(SafeBackfill("odd", "code", models.F("id")))
        self.apply(SafeAlterField("odd", "code", models.CharField(max_length=9, unique=True)))
        self.assertEqual(self.sql('SELECT DISTINCT "Status", code = id::text FROM "Other"."Odd table"'), [(4, True)])
        self.assertTrue(self.column("code", '"Other"."Odd table"')[1])

    def test_a_child_of_multi_table_inheritance(self):
        self.run_plain(CreateModel("Gift", [("note", models.TextField(null=True))], bases=("shop.order",)))
        self.addCleanup(self.sql, "DROP TABLE IF EXISTS shop_gift")
        self.sql("INSERT INTO shop_gift (order_ptr_id) SELECT id FROM shop_order")
        self.apply(SafeAddNotNullField("gift", "wrapping", models.TextField(default="paper")))
        self.apply(SafeBackfill("gift", "note", "x"))
        self.assertEqual(self.sql("SELECT DISTINCT wrapping, note FROM shop_gift"), [("paper", "x")])
        self.sql("DROP TABLE shop_gift")

    def test_a_custom_field_prepares_its_values(self):
        self.apply(SafeAddField("order", "status", Shouting(max_length=9, null=True)))
        self.apply(SafeBackfill("order", "status", "loud"))
        self.assertEqual(self.values(), {"LOUD": ROWS})
        self.apply(SafeAddNotNullField("order", "kind", Shouting(max_length=9), backfill="odd"))
        self.assertEqual(self.values("kind"), {"ODD": ROWS})

    def test_who_does_not_own_the_table_is_told_so(self):
        self.apply(SafeAddField("order", "status", models.TextField(null=True)))
        self.sql("CREATE ROLE clerk; GRANT ALL ON shop_order TO clerk; SET ROLE clerk")
        try:
            self.apply(SafeBackfill("order", "status", "x"))
            with self.assertRaisesRegex(Exception, "must be owner of table"):
                self.apply(SafeSetNotNull("order", "status", models.TextField()))
        finally:
            self.sql("RESET ROLE; DROP OWNED BY clerk; DROP ROLE clerk")
        self.assertEqual(self.values(), {"x": ROWS})
        self.assertFalse(self.column()[1])
