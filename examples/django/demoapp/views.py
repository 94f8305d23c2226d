from django.db import connection
from django.db.models import JSONField
from django.db.models.expressions import RawSQL
from django.http import JsonResponse

from demoapp.models import LargeUser

FIRST_ROWS = 10


def list_large(request):
    # As whole rows: it has to work before there is a status, and after.
    row = RawSQL("to_jsonb(large_user)", (), output_field=JSONField())
    users = LargeUser.objects.order_by("pk").values_list(row, flat=True)
    return JsonResponse({"about": estimated_count(LargeUser), "users": list(users[:FIRST_ROWS])})


def health(request):
    connection.ensure_connection()
    return JsonResponse({"status": "ok"})


def estimated_count(model):
    """The planner's estimate, as counting would read the whole table."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT reltuples::bigint FROM pg_class WHERE oid = %s::regclass", [model._meta.db_table])
        return cursor.fetchone()[0]
