import time

from django.core.management.base import BaseCommand, CommandError
from django.db import connection
from tqdm import tqdm

SMALL_COUNT = 10
CHUNK = 100_000
# Seconds.
PATIENCE = 30


class Command(BaseCommand):
    help = "Empties both tables and fills them anew."

    def add_arguments(self, parser):
        parser.add_argument("--large-count", type=int, default=10_000_000)

    def handle(self, *args, large_count, **options):
        wait_for_tables()
        with connection.cursor() as cursor:
            cursor.execute("TRUNCATE small_user, large_user RESTART IDENTITY")
            insert(cursor, "small_user", 1, SMALL_COUNT)
            with tqdm(total=large_count, unit=" rows", unit_scale=True) as progress:
                for first in range(1, large_count + 1, CHUNK):
                    last = min(first + CHUNK - 1, large_count)
                    insert(cursor, "large_user", first, last)
                    progress.update(last - first + 1)
            # Otherwise autovacuum would do so in the middle of the first migration.
            cursor.execute("VACUUM (ANALYZE) small_user, large_user")
        self.stdout.write(f"small_user: {SMALL_COUNT} rows, large_user: {large_count} rows")


def wait_for_tables():
    """Right after `docker compose up -d` the first migration may still be running."""
    deadline = time.monotonic() + PATIENCE
    while not {"small_user", "large_user"} <= set(connection.introspection.table_names()):
        if time.monotonic() > deadline:
            raise CommandError("There are no tables. Run: manage.py migrate demoapp 0001")
        time.sleep(0.5)


def insert(cursor, table, first, last):
    """Has the server make the rows. Not by the models: those may be ahead of the tables, having a status already."""
    cursor.execute(
        f"INSERT INTO {table} (name) SELECT format('User %%s', n) FROM generate_series(%s, %s) AS n", [first, last]
    )
