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
    connection = schema_editor.connection
    with ending_with_its_client(connection), showing_messages(connection):
        schema_editor.execute(statement, values)


@contextmanager
def ending_with_its_client(connection):
    """Has the server notice if this process is killed: the CALL would go on, and keep the next one from starting."""
    with connection.cursor() as cursor:
        cursor.execute("SET client_connection_check_interval = '1s'")
    yield
    with connection.cursor() as cursor:
        cursor.execute("RESET client_connection_check_interval")


@contextmanager
def showing_messages(connection):
    """Prints the server's messages as they come, on lines of their own below the name of the migration."""
    messages = []

    def show(diagnostic):
        messages.append(diagnostic)
        print(f"\n    {as_text(diagnostic)}", end="", flush=True)

    session = connection.connection
    session.add_notice_handler(show)
    try:
        yield
    finally:
        session.remove_notice_handler(show)
        if messages:
            print("\n   ", end="", flush=True)


def as_text(diagnostic):
    lines = [
        f"{diagnostic.severity}: {diagnostic.message_primary}",
        diagnostic.message_detail and f"DETAIL: {diagnostic.message_detail}",
        diagnostic.message_hint and f"HINT: {diagnostic.message_hint}",
    ]
    return "\n    ".join(filter(None, lines))
