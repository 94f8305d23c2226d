"""CALLs of pg_safe_backfill's procedures."""

from contextlib import contextmanager


def call(schema_editor, procedure, *arguments, **options):
    """Calls a procedure and prints what it says while it runs."""
    places = ["%s"] * len(arguments) + [f"{name} => %s" for name in options]
    statement = f"CALL {procedure}({', '.join(places)})"
    values = [*arguments, *options.values()]
    if schema_editor.collect_sql:
        schema_editor.execute(statement, values)
        return
    with attended(schema_editor.connection):
        schema_editor.execute(statement, values)


@contextmanager
def attended(connection):
    """Keeps client and server in touch: messages are shown at once, and no CALL outlives a client that was killed."""
    with connection.cursor() as cursor:
        cursor.execute("SET client_connection_check_interval = '1s'")
    connection.connection.add_notice_handler(show)
    try:
        yield
    finally:
        connection.connection.remove_notice_handler(show)
        if connection.is_usable():
            with connection.cursor() as cursor:
                cursor.execute("RESET client_connection_check_interval")


def show(diagnostic):
    """Prints a server's message on lines of its own, below the name of the migration."""
    parts = [
        f"{diagnostic.severity}: {diagnostic.message_primary}",
        diagnostic.message_detail and f"DETAIL: {diagnostic.message_detail}",
        diagnostic.message_hint and f"HINT: {diagnostic.message_hint}",
    ]
    print("", *filter(None, parts), sep="\n    ", end="", flush=True)
