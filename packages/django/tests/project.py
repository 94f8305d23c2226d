"""A Django project in a folder of its own, whose models are edited and whose manage.py is run."""

import os
import pty
import shutil
import signal
import subprocess
import sys
import tempfile
import textwrap
import time
from pathlib import Path

import psycopg

SETTINGS = """
SECRET_KEY = "not a secret"
INSTALLED_APPS = [{applications} "shop"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {{"default": {{
    "ENGINE": "django.db.backends.postgresql", "HOST": {host!r}, "PORT": "5432", "USER": "postgres", "NAME": {name!r},
    "OPTIONS": {options!r},
}}}}
{more}
"""
MANAGE = """
import os, sys
os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
from django.core.management import execute_from_command_line
execute_from_command_line(sys.argv)
"""
DATABASE = "project"
ALL = '"django_safe_backfill", "django_safe_backfill.makemigrations",'
PATIENCE = 60


class Project:
    """An application `shop`, in a database that has the extension and nothing else."""

    def __init__(self, server, applications=ALL, options=None, more=""):
        self.folder = Path(tempfile.mkdtemp(prefix="project."))
        self.host = server
        with self.connect("postgres") as session:
            session.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
            session.execute(f"CREATE DATABASE {DATABASE}")
        self.sql("CREATE EXTENSION pg_safe_backfill")
        self.write("manage.py", MANAGE)
        self.write(
            "settings.py",
            SETTINGS.format(applications=applications, host=server, name=DATABASE, options=options or {}, more=more),
        )
        self.write("shop/__init__.py", "")
        self.write("shop/migrations/__init__.py", "")

    def remove(self):
        shutil.rmtree(self.folder)

    def write(self, path, text):
        file = self.folder / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(textwrap.dedent(text))

    def models(self, text):
        self.write("shop/models.py", "from django.db import models\n" + textwrap.dedent(text))

    def migration(self, name, operations, *, after=None, atomic=False):
        dependencies = [("shop", after)] if after else []
        self.write(
            f"shop/migrations/{name}.py",
            "from django.db import migrations, models\nimport django_safe_backfill\n"
            f"class Migration(migrations.Migration):\n    atomic = {atomic}\n    dependencies = {dependencies}\n"
            f"    operations = [{operations}]\n",
        )

    def migrations(self):
        """The names of all that there are."""
        return sorted(file.stem for file in (self.folder / "shop/migrations").glob("0*.py"))

    def text(self, name):
        return (self.folder / f"shop/migrations/{name}.py").read_text()

    def connect(self, name=DATABASE):
        return psycopg.connect(host=self.host, port=5432, dbname=name, user="postgres", autocommit=True)

    def sql(self, statement):
        with self.connect() as session:
            cursor = session.execute(statement)
            return cursor.fetchall() if cursor.description else None

    def value(self, statement):
        return self.sql(statement)[0][0]

    def start(self, *arguments, **options):
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
        environment.pop("DJANGO_SETTINGS_MODULE", None)
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=self.folder,
            env=environment,
            **{
                "stdout": subprocess.PIPE,
                "stderr": subprocess.STDOUT,
                "stdin": subprocess.PIPE,
                "text": True,
                **options,
            },
        )

    def try_to_manage(self, *arguments, answers=""):
        process = self.start(*arguments)
        output, _ = process.communicate(answers, timeout=PATIENCE)
        return process.returncode, output

    def manage(self, *arguments, answers=""):
        """Runs a command that has to succeed; returns what it prints."""
        status, output = self.try_to_manage(*arguments, answers=answers)
        assert status == 0, f"{arguments} failed:\n{output}"
        return output

    def on_terminal(self, *arguments, until=None, then=None):
        """Exit status and output of a command on a terminal; `then` is called once SQL condition `until` holds."""
        terminal, end = pty.openpty()
        process = self.start(*arguments, stdin=end, stdout=end, stderr=end, text=False, start_new_session=True)
        os.close(end)
        if until:
            self.wait_until(until)
            then(process)
        output = b""
        while True:
            try:
                read = os.read(terminal, 65536)
            except OSError:
                break
            if not read:
                break
            output += read
        os.close(terminal)
        return process.wait(PATIENCE), output.decode()

    def wait_until(self, condition):
        deadline = time.monotonic() + PATIENCE
        while not self.value(f"SELECT {condition}"):
            assert time.monotonic() < deadline, condition
            time.sleep(0.02)


def interrupt(process):
    """As Ctrl-C does."""
    process.send_signal(signal.SIGINT)


def kill(process):
    process.kill()
