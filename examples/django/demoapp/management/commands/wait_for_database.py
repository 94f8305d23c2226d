import time

from django.core.management.base import BaseCommand
from django.db import OperationalError, connection


class Command(BaseCommand):
    help = "Waits until the database takes connections."

    def add_arguments(self, parser):
        parser.add_argument("--seconds", type=float, default=60)

    def handle(self, *args, seconds, **options):
        deadline = time.monotonic() + seconds
        while True:
            try:
                return connection.ensure_connection()
            except OperationalError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.5)
