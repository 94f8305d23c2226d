"""What a user did wrong, or has to know."""

from django.core.management.base import CommandError
from django.db import DatabaseError

GO_ON = "Run the same command to go on."
# By SQLSTATE
HINTS = {
    "23502": "Fill these rows with SafeBackfill, and give the field a db_default for new rows. " + GO_ON,
    "55P03": GO_ON,
    "57014": GO_ON,
}


class SafeMigrationError(CommandError):
    """A migration cannot go on. As a CommandError it is shown by `migrate` in its own words, without a traceback."""


def in_words(error: DatabaseError) -> str:
    """The message of the server, with its DETAIL and HINT."""
    diagnostic = getattr(error.__cause__, "diag", None)
    if diagnostic is None or not diagnostic.message_primary:
        return str(error)
    return as_text(diagnostic)


def in_words_of_migrate(error: DatabaseError) -> str:
    """As `in_words`, with what to do in a migration where the server's HINT is a CALL."""
    diagnostic = getattr(error.__cause__, "diag", None)
    hint = HINTS.get(getattr(error.__cause__, "sqlstate", None) or "")
    if diagnostic is None or hint is None:
        return in_words(error)
    return "\n".join([*in_words(error).split("\nHINT: ")[:1], f"HINT: {hint}"])


def as_text(diagnostic: object) -> str:
    """A message of the server, as psql shows it."""
    lines = [
        ("", "message_primary"),
        ("DETAIL: ", "message_detail"),
        ("HINT: ", "message_hint"),
    ]
    found = ((title, getattr(diagnostic, name)) for title, name in lines)
    return "\n".join(title + text for title, text in found if text)
