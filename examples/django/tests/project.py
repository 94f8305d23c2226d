import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).resolve().parent.parent


class Project:
    """A copy of the example, free to be edited, and its manage.py."""

    def __init__(self, **environment):
        self.folder = Path(tempfile.mkdtemp(prefix="example."))
        ignored = shutil.ignore_patterns("tests", "__pycache__")
        shutil.copytree(SOURCE, self.folder, ignore=ignored, dirs_exist_ok=True)
        self.environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", **environment}

    def remove(self):
        shutil.rmtree(self.folder)

    def start(self, *arguments, **environment):
        return subprocess.Popen(
            [sys.executable, "manage.py", *arguments],
            cwd=self.folder,
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def manage(self, *arguments, **environment):
        """Runs a command that has to succeed; returns what it prints."""
        status, output = self.try_to_manage(*arguments, **environment)
        assert status == 0, f"{arguments} failed:\n{output}"
        return output

    def try_to_manage(self, *arguments, **environment):
        process = self.start(*arguments, **environment)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output

    @contextmanager
    def serving(self):
        """The application, while it runs; yields its address."""
        port = free_port()
        process = self.start("runserver", "--noreload", str(port))
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=30)

    def edit(self, path, old, new):
        file = self.folder / path
        text = file.read_text()
        assert old in text, f"{path} has no {old!r}"
        file.write_text(text.replace(old, new))

    def delete(self, pattern):
        files = list(self.folder.glob(pattern))
        assert files, f"nothing is called {pattern}"
        for file in files:
            file.unlink()


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]
