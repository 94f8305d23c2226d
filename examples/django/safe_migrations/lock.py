"""DDL that never makes a queue."""

import time

from django.db import OperationalError
from psycopg.errors import LockNotAvailable

# Whoever comes while a statement waits for its lock waits behind it, so it must not wait long. A little longer than
# deadlock_timeout, though: after that time autovacuum gives way.
LOCK_TIMEOUT = "1500ms"
ATTEMPTS = 30
PAUSE = 1


def patiently(schema_editor, alter, *arguments):
    """Calls `alter`, again and again until it gets its lock. It must be one statement, or harmless to repeat."""
    schema_editor.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
    try:
        for _ in range(ATTEMPTS - 1):
            try:
                return alter(*arguments)
            except OperationalError as error:
                if not isinstance(error.__cause__, LockNotAvailable):
                    raise
            time.sleep(PAUSE)
        return alter(*arguments)
    finally:
        schema_editor.execute("RESET lock_timeout")
