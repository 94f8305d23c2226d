"""What the server says while a statement runs, shown below the name of the migration."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, TextIO

from django.db.backends.base.base import BaseDatabaseWrapper

from django_safe_backfill.errors import as_text

PERCENT = re.compile(r"[\d.]+% done")
# Of safe_backfill: it has ended, and rows are NULL still.
INCOMPLETE = re.compile(r"still null in column|kept becoming null")


@dataclass
class Output:
    """Where `migrate` writes, and how much. Without it, warnings alone are, to stderr."""

    stream: Any = None
    verbosity: int = 0

    @property
    def is_terminal(self) -> bool:
        return bool(self.stream is not None and self.stream.isatty())

    def write(self, text: str) -> None:
        stream: TextIO = getattr(self.stream, "_out", self.stream)
        stream.write(text)
        stream.flush()


output = Output()


def break_line() -> None:
    """Has an error begin on a line of its own, and not behind the name of the migration."""
    if output.verbosity >= 1:
        output.write("\n")


def tell(text: str) -> None:
    """Says what is done otherwise than expected, below the name of the migration."""
    if output.verbosity >= 1:
        output.write(f"\n    {text}")


def begin(verbosity: int = 0, stdout: Any = None, **kwargs: Any) -> None:
    """A receiver of `pre_migrate`."""
    output.stream, output.verbosity = stdout, verbosity


def end(**kwargs: Any) -> None:
    """A receiver of `post_migrate`."""
    output.stream, output.verbosity = None, 0


@dataclass
class Messages:
    """The messages of one statement."""

    incomplete: list[str] = field(default_factory=list)
    percent: str | None = None
    # Whether something was written on the line where the cursor is.
    is_on_line: bool = False

    def receive(self, diagnostic: Any) -> None:
        severity = diagnostic.severity_nonlocalized or diagnostic.severity
        text = diagnostic.message_primary or ""
        if severity == "WARNING":
            if INCOMPLETE.search(text):
                # It will be the error.
                self.incomplete.append(as_text(diagnostic))
            else:
                self.show(f"WARNING: {as_text(diagnostic)}")
            return
        percent = PERCENT.search(text)
        if percent:
            self.percent = percent.group()
        if output.verbosity >= 1:
            self.show(text if output.verbosity == 1 else as_text(diagnostic), replace=bool(percent))

    def show(self, text: str, replace: bool = False) -> None:
        """Writes a line; on a terminal, one that tells progress is replaced by the next."""
        if output.stream is None:
            if text.startswith("WARNING"):
                print(text, file=sys.stderr)
            return
        erase = "\r\x1b[K" if self.is_on_line and output.is_terminal else "\n"
        output.write(erase + "    " + text.replace("\n", "\n    "))
        self.is_on_line = replace


@contextmanager
def shown(connection: BaseDatabaseWrapper) -> Iterator[Messages]:
    """Shows the messages of a statement that runs meanwhile."""
    messages = Messages()
    session: Any = connection.connection
    session.add_notice_handler(messages.receive)
    try:
        yield messages
    finally:
        session.remove_notice_handler(messages.receive)
