"""What a stage writes to. Everything goes to the supervisor at once, so a stage that is killed loses nothing."""

import contextlib
import gc
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch

from attnmod.benchmarks.harness import Row

# A table of tiles that a stage leaves in Report.folder under this name serves the stages after it, in a new child too.
TABLE = "tiles.json"


class LeftOut(Exception):
    """Raised inside a check: it cannot be made here, and that is no failure. The text says what is missing."""


class DeviceLost(BaseException):
    """The CUDA context is beyond use: nothing else can run in this process. No stage should catch it."""


class Report:
    """What a stage is given.

    Attributes:
        toy: tiny sizes, to see that everything runs.
        more: also what has no place in six minutes.
        device: where to measure.
        folder: where files of this run may be put; they are kept and come back in the archive.
    """

    def __init__(
        self,
        stage: str,
        seconds: float,
        send: Callable[[dict], None],
        *,
        toy: bool,
        more: bool,
        device: torch.device,
        folder: Path,
        done: frozenset[str] = frozenset(),
    ):
        self.stage, self.toy, self.more, self.device, self.folder = stage, toy, more, device, folder
        self._send, self._done = send, done
        self._until = time.monotonic() + seconds
        self._last = time.time()

    def seconds_left(self) -> float:
        """Of this stage. A stage asks before each new piece of work; what runs on is killed."""
        return self._until - time.monotonic()

    def already(self, name: str) -> bool:
        """Whether this check was made before the device was lost and the stage began anew."""
        return name in self._done

    @contextlib.contextmanager
    def check(self, name: str) -> Iterator[Callable[[str], None]]:
        """Something that holds or does not: an exception inside is recorded and goes no further.

        >>> with report.check("graph replay") as note:          # doctest: +SKIP
        ...     note("50 repeats")
        """
        notes: list[str] = []
        outcome, text = "ok", ""
        try:
            yield notes.append
        except LeftOut as error:
            outcome, text = "left out", str(error)
        except Exception as error:
            outcome = "FAILED"
            text = f"{type(error).__name__}: {error}"[:2000]
            self.save_text(f"{self.stage}-{name}.traceback.txt", traceback.format_exc())
        if outcome == "FAILED":
            gc.collect()  # what the traceback held
        self._tell("check", name=name, outcome=outcome, text="; ".join([*notes, *([text] if text else [])]))
        if outcome == "FAILED":
            self.assert_device(name)

    def row(self, row: Row, flops: float | None = None) -> None:
        """One measurement. With its operations given, the summary adds TFLOP/s and how that compares at the clock."""
        self._tell("row", row=asdict(row), flops=flops)

    def say(self, line: str) -> None:
        """A line of the closing summary, which has about sixty for all stages."""
        self._tell("say", line=line)

    def save_text(self, name: str, text: str) -> None:
        self._tell("text", name="".join(c if c.isalnum() or c in "._-" else "-" for c in name), text=text)

    def environment(self) -> dict[str, str]:
        """What a program of its own needs to launch the kernels that this process launches."""
        table = self.folder / TABLE
        return {"ATTNMOD_TILES": str(table)} if table.exists() else {}

    def assert_device(self, after: str) -> None:
        """Raises DeviceLost, which ends this process, where nothing runs on the device any more."""
        if self.device.type != "cuda":
            return
        try:
            torch.cuda.synchronize()
        except Exception as error:
            self.say(f"the device was lost after {after}: {str(error).splitlines()[0][:120]}")
            raise DeviceLost(after) from error

    def _tell(self, event: str, **facts) -> None:
        now = time.time()
        self._send({"event": event, "stage": self.stage, "since": self._last, "time": now, **facts})
        self._last = now
