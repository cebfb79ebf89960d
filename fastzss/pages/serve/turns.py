"""How much is done at a time: a few images, a bounded number of requests that wait, a bounded number of bytes."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager

from fastzss.pages.serve.uploads import Refused

SLOWEST = 60  # seconds for a request to arrive in
HELD = 8  # bodies of the largest size that may lie in memory together


class Turns:
    def __init__(self, parallel, waiting, megabytes):
        self.parallel, self.most, self.largest = parallel, parallel + waiting, megabytes * 1_000_000
        self.inside = self.held = 0
        self.stopping = False
        self._free = asyncio.Semaphore(parallel)
        self._pool = ThreadPoolExecutor(parallel, "look")

    @asynccontextmanager
    async def place(self):
        """A place in the queue."""
        if self.stopping:
            raise Refused(503, STOPPING)
        if self.inside >= self.most:
            raise Refused(503, f"{self.inside} requests are waiting already; try again in a moment")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    @asynccontextmanager
    async def body(self, request):
        """All bytes of a request, which count until it is answered."""
        received, size = [], 0
        try:
            async with asyncio.timeout(SLOWEST):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > 4 * self.largest:
                        break
                    if size > self.largest:  # read to its end, or whoever sends would not listen; but not kept
                        self.held -= sum(map(len, received))
                        received.clear()
                        continue
                    self.held += len(chunk)
                    received.append(chunk)
                    if self.held > HELD * self.largest:
                        raise Refused(503, "too much is being uploaded at the moment; try again in a moment")
            if size > self.largest:
                limit = self.largest // 1_000_000
                raise Refused(413, f"the request has more than {limit} MB, which is the most that is taken")
            yield b"".join(received)
        except TimeoutError:
            raise Refused(408, f"the request took longer than {SLOWEST} seconds to arrive; send it again") from None
        finally:
            self.held -= sum(map(len, received))

    async def work(self, request, function, *arguments):
        """What a function gives, when it is this request's turn."""
        async with self._free:
            if self.stopping:
                raise Refused(503, STOPPING)
            if await request.is_disconnected():
                raise Refused(499, "nobody waits for this answer")
            return await asyncio.get_running_loop().run_in_executor(self._pool, function, *arguments)

    def stop(self):
        self.stopping = True


STOPPING = "the server is stopping; start it again with `fastzss serve`"
