"""What a user did wrong, or has to know."""

from django.core.management.base import CommandError
from django.db import DatabaseError


class SafeMigrationError(CommandError):
    """A migration cannot go on. As a CommandError it is shown by `migrate` in its own words, without a traceback."""


def in_words(error: DatabaseError) -> str:
    """The message of the server, with its DETAIL and HINT."""
    diagnostic = getattr(error.__cause__, "diag", None)
    if diagnostic is None or not diagnostic.message_primary:
        return str(error)
    return as_text(diagnostic)


def as_text(diagnostic: object) -> str:
    """A message of the server, as psql shows it."""
    lines = [
        ("", "message_primary"),
        ("DETAIL: ", "message_detail"),
        ("HINT: ", "message_hint"),
    ]
    found = ((title, getattr(diagnostic, name)) for title, name in lines)
    return "\n".join(title + text for title, text in found if text)
