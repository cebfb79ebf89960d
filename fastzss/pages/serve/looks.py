"""Images that were looked at, under random names: the next words are compared with what is kept.

The oldest go when all together take more than the limit.
"""

import secrets
import threading
from collections import OrderedDict
from dataclasses import dataclass, field

from fastzss.pages.serve.uploads import Refused


@dataclass(eq=False)
class Look:
    seen: object  # what a model's `see` gave, of an image brought to a working size
    size: tuple  # (width, height) in which the image was given
    name: str = field(default_factory=lambda: secrets.token_urlsafe(16))
    lock: threading.Lock = field(default_factory=threading.Lock)  # one thread at a time adds to what it knows


class Looks:
    def __init__(self, megabytes):
        self.limit, self._kept, self._lock = megabytes * 1_000_000, OrderedDict(), threading.Lock()

    def find(self, name):
        with self._lock:
            look = self._kept.get(name)
            if look is None:
                raise Refused(410, "this image is not known any more; send it again")
            self._kept.move_to_end(name)
            return look

    def keep(self, look):
        """Keep a look that was used, and let go of the oldest beyond the limit."""
        with self._lock:
            self._kept[look.name] = look
            self._kept.move_to_end(look.name)
            sizes = {name: kept.seen.bytes for name, kept in self._kept.items()}
            while sum(sizes.values()) > self.limit:
                name, _ = self._kept.popitem(last=False)
                del sizes[name]

    @property
    def bytes(self):
        with self._lock:
            return sum(look.seen.bytes for look in self._kept.values())
