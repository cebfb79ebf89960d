"""What can be set of the demo; light to import, so that `--help` is instant."""

from dataclasses import dataclass
from pathlib import Path

from fastzss.base.config import option


@dataclass(frozen=True, kw_only=True)
class DemoConfig:
    """The whole story on the built-in world: look at images once, learn, segment, report."""

    out: Path = option("folder of the store, the runs and the report", Path("runs/demo"))
    quick: bool = option("a smaller world and fewer steps: to see that everything works, not how well", False)
    seeds: int = option("runs of each kind, with their own weights and sample order", 1)
    method: str = option("what is trained", "simzss", choices=("simzss", "zeroseg", "both"))
    device: str | None = option("cpu, cuda, ...; by default cuda where there is one", None)

    def __post_init__(self):
        if self.seeds < 1:
            raise ValueError(f"--seeds must be positive, got {self.seeds}")
