"""STORE.unreadable.log, beside the store: a line for every image that could not be read, its id and what is wrong."""

import logging
import threading
from pathlib import Path

log = logging.getLogger("fastzss")


class Unreadable:
    """The log of a store; several processes may add to it."""

    def __init__(self, store):
        store = Path(store)
        self.path = store.with_name(f"{store.name}.unreadable.log")
        self._lock = threading.Lock()
        self.names = self._read()

    def _read(self):
        try:
            return {line.partition("\t")[0] for line in self.path.read_text(encoding="utf-8").splitlines()}
        except FileNotFoundError:
            return set()

    def add(self, name, problem):
        """An image is named once, however often it is looked at."""
        with self._lock:
            if name in self.names:
                return
            self.names.add(name)
            if len(self.names) == 1:
                log.warning("%s; its row stays empty, as those of all images that %s will name", problem, self.path)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(f"{name}\t{str(problem).replace(chr(10), ' ')}\n")

    def forget(self):
        """Of a store that begins anew."""
        self.names.clear()
        self.path.unlink(missing_ok=True)
