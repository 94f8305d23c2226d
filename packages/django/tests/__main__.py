"""Runs the tests on a server of their own: python -m tests [NAME...]"""

import os
import sys
import unittest
from pathlib import Path

from private_server import Server


def main() -> int:
    os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"
    server = Server()
    try:
        server.start()
        os.environ["SAFE_BACKFILL_HOST"] = server.folder
        server.create_database("tests")
        server.create_database("without_extension")
        with server.connect("tests") as connection:
            connection.execute("CREATE EXTENSION pg_safe_backfill")

        import django

        django.setup()
        names = [name if name.startswith("tests.") else f"tests.{name}" for name in sys.argv[1:]]
        loader = unittest.defaultTestLoader
        folder = Path(__file__).parent
        suite = loader.loadTestsFromNames(names) if names else loader.discover(str(folder), top_level_dir=folder.parent)
        result = unittest.TextTestRunner(verbosity=1).run(suite)
        return 0 if result.wasSuccessful() else 1
    finally:
        server.stop()


if __name__ == "__main__":
    sys.exit(main())
