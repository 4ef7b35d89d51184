"""Clock, power and temperature of the GPU all the time, from one nvidia-smi that runs beside everything."""

import bisect
import contextlib
import datetime
import os
import pty
import shutil
import statistics
import subprocess
import threading
from dataclasses import dataclass

_QUERY = "timestamp,clocks.sm,power.draw,temperature.gpu"
_EVERY_MS = 250  # each question to the driver holds up whoever launches meanwhile


@dataclass(frozen=True)
class Sample:
    """A moment (as time.time() counts), MHz, watt, degrees Celsius."""

    time: float
    mhz: float
    watt: float
    celsius: float


class Clocks:
    """Samples from start() to stop(). Where there is no nvidia-smi there are none."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._process: subprocess.Popen | None = None
        self._reader: threading.Thread | None = None

    def start(self) -> str:
        """Returns a line that says why there are none, or ""."""
        if shutil.which("nvidia-smi") is None:
            return "clocks are not sampled: there is no nvidia-smi"
        device = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
        command = ["nvidia-smi", f"--id={device}", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
        try:
            reading, writing = pty.openpty()  # a program that writes into a pipe keeps some seconds of it to itself
            self._process = subprocess.Popen(
                [*command, f"--loop-ms={_EVERY_MS}"],
                stdin=subprocess.DEVNULL,
                stdout=writing,
                stderr=subprocess.DEVNULL,
            )
        except OSError as error:
            return f"clocks are not sampled: {error}"
        os.close(writing)
        self._reader = threading.Thread(target=self._read, args=(reading,), daemon=True)
        self._reader.start()
        return ""

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(2)
            except subprocess.TimeoutExpired:
                self._process.kill()
        if self._reader is not None:
            self._reader.join(2)

    def mhz(self, since: float, until: float) -> float | None:
        """The median SM clock of that time, from the nearest sample where none lies within."""
        return median(self.between(since, until), "mhz")

    def between(self, since: float, until: float) -> list[Sample]:
        samples = self.samples[:]  # the reader appends meanwhile
        times = [sample.time for sample in samples]
        found = samples[bisect.bisect_left(times, since) : bisect.bisect_right(times, until)]
        nearest = samples[max(0, bisect.bisect_right(times, until) - 1) :][:1]
        return found or [sample for sample in nearest if abs(sample.time - until) < 1.0]

    def _read(self, reading: int) -> None:
        # a terminal whose other end is closed ends with an error
        with contextlib.suppress(OSError), os.fdopen(reading, errors="replace") as lines:
            for line in lines:
                if (sample := parse(line)) is not None:
                    self.samples.append(sample)


def parse(line: str) -> Sample | None:
    """
    >>> parse("2026/11/26 08:00:00.250, 1980, 412.53, 44").mhz
    1980.0
    >>> parse("No devices were found")
    """
    parts = [part.strip() for part in line.split(",")]
    try:
        moment, mhz, watt, celsius = parts
        at = datetime.datetime.strptime(moment, "%Y/%m/%d %H:%M:%S.%f").timestamp()
        return Sample(at, float(mhz), _number(watt), _number(celsius))
    except ValueError:
        return None


def _number(text: str) -> float:
    """What a driver does not tell is "[N/A]"."""
    try:
        return float(text)
    except ValueError:
        return float("nan")


def median(samples: list[Sample], field: str) -> float | None:
    values = [value for sample in samples if (value := getattr(sample, field)) == value]
    return statistics.median(values) if values else None
