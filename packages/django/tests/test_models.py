"""Models that are not plain: routers, schemas, inheritance, custom fields."""

from django.db import models
from django.db.migrations import CreateModel
from django.test import override_settings

from django_safe_backfill import SafeAddField, SafeAddNotNullField, SafeAlterField, SafeBackfill, SafeSetNotNull
from django_safe_backfill.errors import SafeMigrationError
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

    def test_a_proxy_and_a_model_that_is_not_managed_have_rows(self):
        self.apply(SafeAddField("order", "status", models.TextField(null=True)))
        self.run_plain(CreateModel("Proxy", [], {"proxy": True}, bases=("shop.order",)))
        columns = [("id", models.BigAutoField(primary_key=True)), ("status", models.TextField(null=True))]
        self.run_plain(CreateModel("Guest", columns, {"managed": False, "db_table": "shop_order"}))
        self.apply(SafeBackfill("proxy", "status", "few", where=models.Q(total__lte=10)))
        self.apply(SafeBackfill("guest", "status", "many"))
        self.assertEqual(self.values(), {"few": 10, "many": ROWS - 10})

    def test_a_field_of_the_table_of_another_model_is_refused_by_name(self):
        self.apply(SafeAddField("order", "status", models.TextField(null=True)))
        self.run_plain(CreateModel("Gift", [("note", models.TextField(null=True))], bases=("shop.order",)))
        self.addCleanup(self.sql, "DROP TABLE IF EXISTS shop_gift")
        self.apply(SafeBackfill("gift", "note", "x"))
        with self.assertRaisesRegex(SafeMigrationError, "(?s)status is a field of shop.Order.*Name that model, order"):
            self.apply(SafeBackfill("gift", "status", "x"))

    def test_a_field_without_a_column_is_none_of_the_database(self):
        to_customer = {"to": "shop.Customer", "on_delete": models.CASCADE, "to_fields": ["id"]}
        for kind, is_null in (SafeAddField, True), (SafeAddNotNullField, False):
            operation = kind("order", "other", models.ForeignObject(from_fields=["total"], null=is_null, **to_customer))
            self.apply(operation)
            self.reverse(operation)

    def test_a_partitioned_table(self):
        self.sql(
            "CREATE TABLE part (id bigserial PRIMARY KEY, email text, total int) PARTITION BY RANGE (id);"
            "CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (50);"
            "CREATE TABLE part2 PARTITION OF part FOR VALUES FROM (50) TO (1000);"
            "INSERT INTO part (email, total) SELECT 'A', i FROM generate_series(1, 100) i"
        )
        self.addCleanup(self.sql, "DROP TABLE part")
        columns = [("id", models.BigAutoField(primary_key=True)), ("email", models.TextField())]
        columns.append(("total", models.IntegerField(null=True)))
        before = self.state
        CreateModel("Part", columns, {"db_table": "part"}).state_forwards("shop", self.state)
        self.apply(SafeAddNotNullField("part", "lower", models.TextField(db_default=""), backfill=models.F("email")))
        self.apply(SafeAlterField("part", "total", models.PositiveIntegerField(default=1)))
        self.assertTrue(self.column("total", "part")[1])
        for field in (models.TextField(null=True, unique=True), models.TextField(null=True, db_index=True)):
            with self.assertRaisesRegex(SafeMigrationError, "builds no index concurrently on a partitioned table"):
                self.apply(SafeAddField("part", "status", field))
            self.assertIsNone(self.column("status", "part"))
        with self.assertRaisesRegex(SafeMigrationError, "builds no index concurrently on a partitioned table"):
            self.apply(SafeAlterField("part", "total", models.PositiveIntegerField(db_index=True)))
        self.state = before

    def test_who_does_not_own_the_table_is_told_so(self):
        self.apply(SafeAddField("order", "status", models.TextField(null=True)))
        self.sql("CREATE ROLE clerk; GRANT ALL ON shop_order TO clerk; SET ROLE clerk")
        try:
            self.apply(SafeBackfill("order", "status", "x"))
            for operation in (
                SafeSetNotNull("order", "status", models.TextField()),
                SafeAddField("order", "code", models.TextField(null=True)),
            ):
                with self.assertRaisesRegex(SafeMigrationError, "must be owner of table"):
                    self.apply(operation)
        finally:
            self.sql("RESET ROLE; DROP OWNED BY clerk; DROP ROLE clerk")
        self.assertEqual(self.values(), {"x": ROWS})
        self.assertFalse(self.column()[1])
