"""A thread that works in the background, and whose end can be waited for; and what is made ahead in one."""

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor


class Worker(threading.Thread):
    """Runs `work` from now on; it does not keep the program alive."""

    def __init__(self, name, work):
        super().__init__(name=name, daemon=True)
        self._work = work
        self._ended = threading.Event()  # an interrupted Thread.join takes a thread that works for one that has ended
        self.start()

    def run(self):
        try:
            self._work()
        finally:
            self._ended.set()

    def finish(self, tell):
        """Call `tell`, which lets the work come to its end, and wait for that; an interruption is raised afterwards."""
        told, interruption = False, None
        while not self._ended.is_set():
            try:
                if not told:
                    tell()
                    told = True
                self._ended.wait()
            except KeyboardInterrupt as again:
                interruption = again
        self.join()
        if interruption is not None:
            raise interruption


def made_ahead(items):
    """Yield the items of a generator, each made while the one before it is used; closing this closes that."""
    end = object()
    try:
        with ThreadPoolExecutor(1, "ahead") as pool:
            coming = pool.submit(next, items, end)
            while (item := coming.result()) is not end:
                coming = pool.submit(next, items, end)
                yield item
    finally:
        items.close()


def in_order(work, items, threads):
    """Yield work(item) of each item, in order, several being worked on at a time."""
    if threads == 1:
        yield from map(work, items)
        return
    pool, waiting = ThreadPoolExecutor(threads, "in order"), deque()
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
