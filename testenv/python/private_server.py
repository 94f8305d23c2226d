"""The server of the tests that are written in Python; their run_tests put this folder on PYTHONPATH."""

import os
import shutil
import subprocess
import tempfile

import psycopg

PORT = 5432
RUN_AS = os.environ.get("SAFE_BACKFILL_RUN_AS")


class Server:
    """A private PostgreSQL, reached through a socket in a folder of its own."""

    def __init__(self):
        output = subprocess.check_output([os.environ.get("PG_CONFIG", "pg_config"), "--bindir"], text=True)
        self.programs = output.strip()
        self.folder = tempfile.mkdtemp(prefix="django.", dir=os.environ.get("SAFE_BACKFILL_STATE"))
        if RUN_AS:
            shutil.chown(self.folder, RUN_AS)
        self.data = os.path.join(self.folder, "data")
        self.log = os.path.join(self.folder, "log")

    def start(self):
        self.run("initdb", "--no-sync", "--no-locale", "--encoding=UTF8", "--auth=trust", "--username=postgres")
        options = f"-k {self.folder} -p {PORT} -c listen_addresses='' -c fsync=off"
        self.run("pg_ctl", "start", "--wait", f"--log={self.log}", f"--options={options}")

    def stop(self):
        self.run("pg_ctl", "stop", "--mode=immediate")
        shutil.rmtree(self.folder)

    def run(self, program, *arguments):
        command = [os.path.join(self.programs, program), f"--pgdata={self.data}", *arguments]
        if RUN_AS:
            command = ["runuser", "-u", RUN_AS, "--", *command]
        # Not through pipes: the server would keep them open for as long as it runs.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd="/")

    def connect(self, database):
        return psycopg.connect(host=self.folder, port=PORT, dbname=database, user="postgres", autocommit=True)

    def create_database(self, name):
        with self.connect("postgres") as connection:
            connection.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
            connection.execute(f"CREATE DATABASE {name}")
