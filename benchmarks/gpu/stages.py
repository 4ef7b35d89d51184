"""The stages in their order, the seconds that each has of a run of eight minutes, and what becomes of one."""

from dataclasses import dataclass, field

MINUTES = 8.0
# What a stage may take beyond its seconds before it counts as hung: it stops of its own accord where it can.
_GRACE = 1.15
_LEAST_GRACE = 5.0


@dataclass(frozen=True)
class Stage:
    """A name, its seconds, and the module whose `run(report)` it is."""

    name: str
    seconds: float
    module: str

    @property
    def deadline(self) -> float:
        """The seconds after which it is killed."""
        return max(_GRACE * self.seconds, self.seconds + _LEAST_GRACE)


@dataclass
class StageResult:
    """outcome: "ok", "failed" (an exception, or a check that did not hold), "overran" (killed at its deadline),
    "died" (its process did), "stopped" (from outside) or "not run"."""

    outcome: str = "not run"
    error: str = ""
    toy: bool = False
    seconds: float = 0.0
    since: float = 0.0
    until: float = 0.0
    mhz: float | None = None
    watt: float | None = None
    celsius: float | None = None
    rows: list[dict] = field(default_factory=list)
    checks: list[dict] = field(default_factory=list)
    said: list[str] = field(default_factory=list)

    @property
    def failed(self) -> list[dict]:
        return [check for check in self.checks if check["outcome"] == "FAILED"]


def _stage(name: str, seconds: float) -> Stage:
    return Stage(name, seconds, f"attnmod.benchmarks.gpu.{name}")


STAGES = (
    _stage("machine", 15),  # versions, ceilings, what stock's SDPA launches
    _stage("compile", 20),  # everything that the later stages need, in many processes
    _stage("right", 30),  # against float64, poisoned outputs, repeats, graphs
    _stage("kernels", 20),  # by graph replay, against SDPA's backends
    _stage("gluon", 30),  # forms of self-attention that may hang, right or wrong and timed
    _stage("tune", 30),  # tiles of head dim 64; the winners serve the stages that follow
    _stage("unet", 60),  # SDXL's UNet, eager and in a graph, stock and modulated in turn
    _stage("ncu", 45),  # the counters of two launches
    _stage("compiled", 100),  # the UNet by torch.compile
    _stage("sanitizer", 45),  # compute-sanitizer on four small launches
)
