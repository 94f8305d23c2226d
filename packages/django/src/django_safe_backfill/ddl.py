"""DDL that never makes a queue."""

import time
from collections.abc import Callable

from django.db import OperationalError, transaction
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from django_safe_backfill import conf
from django_safe_backfill.errors import SafeMigrationError, in_words
from django_safe_backfill.session import unlimited

# 55P03 lock_not_available, 40P01 deadlock_detected
LOST = {"55P03", "40P01"}


def patiently(editor: BaseDatabaseSchemaEditor, alter: Callable[[], object]) -> None:
    """Runs `alter` in a transaction, again and again until it gets its locks.

    Each attempt waits for SAFE_BACKFILL["LOCK_TIMEOUT"] at most, so that nobody waits behind it for longer. It must be
    harmless to repeat after it succeeded.

    Raises SafeMigrationError when all attempts have failed."""
    if editor.collect_sql:
        alter()
        return
    how = conf.read()
    with unlimited(editor.connection):
        for attempt in range(how.ATTEMPTS):
            if attempt > 0:
                time.sleep(how.PAUSE)
            try:
                with transaction.atomic(editor.connection.alias):
                    with editor.connection.cursor() as cursor:
                        cursor.execute("SELECT set_config('lock_timeout', %s, true)", [str(how.LOCK_TIMEOUT)])
                    alter()
                return
            except OperationalError as error:
                if getattr(error.__cause__, "sqlstate", None) not in LOST:
                    raise
                last = error
    raise SafeMigrationError(
        f"could not lock the table in {how.ATTEMPTS} attempts: {in_words(last)}\n"
        "HINT: Others keep it locked. Run the same command to try again."
    ) from last


def unhurriedly(editor: BaseDatabaseSchemaEditor, sql: object) -> None:
    """Runs a statement that takes long and lets everyone read and write meanwhile; outside a transaction."""
    if editor.collect_sql:
        editor.execute(str(sql), None)
        return
    with unlimited(editor.connection):
        editor.execute(str(sql), None)
