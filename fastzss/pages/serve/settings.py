"""What can be set of the page; light to import, so that `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path

from fastzss.base.config import option, refuse_negative, refuse_zero

LOCAL = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """A page in the browser: drop an image, type words, see masks; and the same for programs, at /api."""

    run: str = option("folder of a run, or hf://ORG/NAME", positional=True)
    port: int = option("where it listens; 0 for any that is free", 8000)
    host: str = option("who reaches it: this machine alone, or 0.0.0.0 for all that know the token", "127.0.0.1")
    token: str | None = option("a secret that every request must know; made where --host needs one", None)
    device: str | None = option("cpu, cuda, ...; by default cuda where there is one", None)
    weights: Path | None = option("the backbone's weights, where they have moved", None)
    checkpoint: str | None = option("best, latest, or step-NNNNNN; by default best, where there is one", None)
    megabytes: int = option("of an uploaded image, at most", 20)
    megapixels: int = option("of an uploaded image, at most", 50)
    words: int = option("classes that are asked for at a time, at most", 200)
    parallel: int = option("images that are worked on at a time", 1)
    waiting: int = option("requests that may wait for their turn; others are refused", 64)
    memory: int = option("megabytes for images that were looked at, so that a new word needs no new look", 500)

    def __post_init__(self):
        refuse_zero(self, "megabytes", "megapixels", "words", "parallel")
        refuse_negative(self, "waiting", "memory")
        if not 0 <= self.port < 65536:
            raise ValueError(f"--port is {self.port}; expected 1 to 65535, or 0 for any that is free")
        if self.words > 254:
            raise ValueError(f"--words is {self.words}; a mask on the page holds 254 at most")
        if self.token is not None and (len(self.token) < 8 or not self.token.isascii() or not self.token.isalnum()):
            raise ValueError("--token must be of letters and digits, eight or more")

    @property
    def local(self):
        return self.host in LOCAL
