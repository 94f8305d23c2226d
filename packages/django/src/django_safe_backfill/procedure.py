"""CALLs of the procedures of pg_safe_backfill."""

import sys
from typing import Any

from django.db import DatabaseError
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.base.schema import BaseDatabaseSchemaEditor

from django_safe_backfill import progress
from django_safe_backfill.errors import SafeMigrationError, in_words_of_migrate
from django_safe_backfill.session import unlimited

EXTENSION = "pg_safe_backfill"


def call(editor: BaseDatabaseSchemaEditor, procedure: str, *arguments: Any, **options: Any) -> None:
    """Calls a procedure, and shows what it says while it runs.

    Options that are None are left out. No timeout of the session ends it.

    Raises SafeMigrationError: for every error of the server, and where rows are NULL still."""
    options = {name: value for name, value in options.items() if value is not None}
    places = ["%s"] * len(arguments) + [f"{name} => %s" for name in options]
    schema = editor.quote_name(schema_of_extension(editor.connection)).replace("%", "%%")
    name = f"{schema}.{procedure}"
    statement = f"CALL {name}({', '.join(places)})"
    values = [*arguments, *options.values()]
    if editor.collect_sql:
        editor.execute(statement, values)
        return
    with unlimited(editor.connection), progress.shown(editor.connection) as messages:
        try:
            # Not by the editor: it would compose one string, and the server could not tell values from it in its log.
            with editor.connection.cursor() as cursor:
                cursor.execute(statement, values)
        except DatabaseError as error:
            raise SafeMigrationError(in_words_of_migrate(error)) from error
        except KeyboardInterrupt:
            raise interrupted(editor.connection, messages.percent) from None
    if messages.incomplete:
        raise SafeMigrationError("\n".join(messages.incomplete))


def schema_of_extension(connection: BaseDatabaseWrapper) -> str:
    """The schema that has the procedures.

    Raises SafeMigrationError where the database does not have the extension."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.nspname FROM pg_extension e JOIN pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = %s",
            [EXTENSION],
        )
        row = cursor.fetchone()
    if row is None:
        raise SafeMigrationError(
            f'the database of the connection "{connection.alias}" does not have the extension {EXTENSION}\n'
            f"HINT: As a superuser, run CREATE EXTENSION {EXTENSION}; or put "
            f'django.contrib.postgres.operations.CreateExtension("{EXTENSION}") into a migration before this one.'
        )
    return str(row[0])


def interrupted(connection: BaseDatabaseWrapper, percent: str | None = None) -> SystemExit:
    """Tells how to go on; the exit status is that of a process ended by SIGINT."""
    # Whatever runs in the session ends with it.
    connection.close()
    print(f"\nInterrupted{', ' + percent if percent else ''}; run the same command to go on.", file=sys.stderr)
    return SystemExit(130)
