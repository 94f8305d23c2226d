import json
import threading
import time
import urllib.request
from urllib.error import URLError

INTERVAL = 0.05
PATIENCE = 60


class Client:
    """Asks for a page every 50 ms in the background, and remembers how long each answer took."""

    def __init__(self, address):
        self.url = f"{address}/list_large/"
        self.seconds = []
        self.failures = []
        self.stopping = threading.Event()
        self.thread = threading.Thread(target=self.poll)

    def __enter__(self):
        self.wait_for_first_answer()
        self.thread.start()
        return self

    def __exit__(self, *exception):
        self.stopping.set()
        self.thread.join()

    @property
    def longest(self):
        return max(self.seconds)

    def get(self):
        with urllib.request.urlopen(self.url, timeout=PATIENCE) as response:
            return json.load(response)

    def wait_for_first_answer(self):
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.get()
            except URLError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.1)

    def poll(self):
        while not self.stopping.wait(INTERVAL):
            began = time.monotonic()
            try:
                self.get()
            except OSError as error:
                self.failures.append(error)
            self.seconds.append(time.monotonic() - began)
