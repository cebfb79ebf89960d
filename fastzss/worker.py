"""A thread that works in the background, and whose end can be waited for."""

import threading


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
