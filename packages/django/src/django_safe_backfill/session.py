"""Settings of a session, for as long as something takes that may take long."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import DatabaseError, InterfaceError
from django.db.backends.base.base import BaseDatabaseWrapper

UNLIMITED = {
    "statement_timeout": "0",
    "lock_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "transaction_timeout": "0",
    # Has the server notice that this process was killed: a statement would go on, and be in the way of the next.
    "client_connection_check_interval": "1s",
}


@contextmanager
def unlimited(connection: BaseDatabaseWrapper) -> Iterator[None]:
    """No timeout of the session, such as one from OPTIONS, ends a statement. Afterwards they are what they were."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, current_setting(name) FROM pg_settings WHERE name = ANY (%s)", [list(UNLIMITED)])
        before = dict(cursor.fetchall())
    set_all(connection, {name: UNLIMITED[name] for name in before})
    try:
        yield
    finally:
        try:
            set_all(connection, before)
        except (DatabaseError, InterfaceError):
            # The session is gone or of no use; a new one has its settings.
            connection.close()


def set_all(connection: BaseDatabaseWrapper, settings: dict[str, str]) -> None:
    """Sets each, for the session."""
    with connection.cursor() as cursor:
        for name, value in settings.items():
            try:
                cursor.execute("SELECT set_config(%s, %s, false)", [name, value])
            except DatabaseError:
                # Not every platform has it.
                if name != "client_connection_check_interval":
                    raise
