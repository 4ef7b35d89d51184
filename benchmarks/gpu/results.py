"""All that the stages found, and how it is kept: written again after every stage, and a little while after every row.

Without OUT it goes to benchmarks/results/<device>/, a file for each stage; with OUT that folder holds no more than
summary.json, summary.txt, the table of tiles, and everything else in results.tar.gz. A disk that is full is told once
and stops nothing: what was measured stays in memory, and is printed at the end.
"""

import io
import json
import math
import os
import shutil
import tarfile
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from attnmod.benchmarks.gpu import summary
from attnmod.benchmarks.gpu.clocks import Clocks, median
from attnmod.benchmarks.gpu.stages import StageResult

RESULTS = Path(__file__).parents[1] / "results"
TABLE = "tiles.json"
_ARCHIVE, _SUMMARY = "results.tar.gz", "summary.json"
_BETWEEN_WRITES = 2.0
_OF_A_ROW = 0.5  # seconds before a row is reported, in which it is timed: before that its inputs are made


class Results:
    """What is known so far. Nothing here raises for want of a disk."""

    def __init__(self, *, toy: bool, clocks: Clocks):
        self.toy, self.clocks = toy, clocks
        self.machine: dict[str, Any] = {}
        self.stages: dict[str, StageResult] = {}
        self.remarks: list[str] = []
        self.texts: dict[str, str] = {}
        self.folder = self._work_folder()
        self._written = 0.0
        self._read_earlier()

    def remark(self, line: str) -> None:
        """A line of the summary that belongs to no stage; the same one once."""
        if line and line not in self.remarks:
            self.remarks.append(line)

    def take(self, event: dict) -> None:
        """A row, a check, a line or a text from a stage. What matters is printed at once, too."""
        stage = self.stages[event["stage"]]
        kind = event["event"]
        stage.until = event["time"]
        if kind == "row":
            extra = {"flops": event["flops"], "since": event["since"], "until": event["time"]}
            stage.rows.append(event["row"] | extra)
        elif kind == "check":
            stage.checks.append({name: event[name] for name in ("name", "outcome", "text")})
            if event["outcome"] == "FAILED":
                print(f"   FAILED {event['name']}: {event['text']}", flush=True)
        elif kind == "say":
            stage.said.append(event["line"])
            print(f"   {event['line']}", flush=True)
        elif kind == "text":
            self.texts[event["name"]] = event["text"]
        if time.monotonic() - self._written > _BETWEEN_WRITES:
            self.save(whole=False)

    def add_clocks(self) -> None:
        """The medians of each stage, and of each of its rows."""
        for stage in self.stages.values():
            if not self.clocks.samples or not stage.since > self.clocks.samples[0].time - 1:
                continue  # of an earlier run
            samples = self.clocks.between(stage.since, stage.until)
            stage.mhz, stage.watt, stage.celsius = (median(samples, what) for what in ("mhz", "watt", "celsius"))
            for row in stage.rows:
                row["mhz"] = self.clocks.mhz(max(row["since"], row["until"] - _OF_A_ROW), row["until"])

    def save(self, *, whole: bool = True) -> None:
        """whole: with every text and file of the run, else summary.json alone."""
        self._written = time.monotonic()
        try:
            destination = self.destination()
            destination.mkdir(parents=True, exist_ok=True)
            _write(destination / _SUMMARY, self._as_json())
            if whole:
                self.add_clocks()
                _write(destination / "summary.txt", "\n".join(summary.lines(self)) + "\n")
                self._save_files(destination)
        except OSError as error:
            self.remark(f"not everything is saved: {error}")

    def destination(self) -> Path:
        if os.environ.get("OUT"):
            return Path(os.environ["OUT"])
        device = str(self.machine.get("device") or "unknown device").lower()
        name = "toy" if self.toy else "".join(c if c.isalnum() or c in "._" else "-" for c in device)
        return RESULTS / name

    def close(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _save_files(self, destination: Path) -> None:
        files = {path.relative_to(self.folder).as_posix(): path.read_bytes() for path in _files(self.folder)}
        files |= {name: text.encode() for name, text in self.texts.items()}
        for name, stage in self.stages.items():
            record = {"machine": self.machine} | _plain(asdict(stage))
            files[f"{name}.json"] = (json.dumps(record, indent=1) + "\n").encode()
        if not os.environ.get("OUT"):
            for name, content in files.items():
                path = destination / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
            return
        if TABLE in files:
            (destination / TABLE).write_bytes(files[TABLE])
        unfinished = destination / f"{_ARCHIVE}.part"
        try:
            with tarfile.open(unfinished, "w:gz") as archive:
                for name, content in files.items():
                    entry = tarfile.TarInfo(name)
                    entry.size, entry.mtime = len(content), int(time.time())
                    archive.addfile(entry, io.BytesIO(content))
            unfinished.replace(destination / _ARCHIVE)
        finally:
            unfinished.unlink(missing_ok=True)

    def _as_json(self) -> str:
        stages = {name: _plain(asdict(stage)) for name, stage in self.stages.items()}
        record = {"machine": self.machine, "toy": self.toy, "remarks": self.remarks, "stages": stages}
        return json.dumps(record, indent=1) + "\n"

    def _work_folder(self) -> Path:
        try:
            return Path(tempfile.mkdtemp(prefix="attnmod-gpu-"))
        except OSError as error:  # then it is a name only, and whoever writes there is told so
            self.remark(f"there is no place for temporary files: {error}")
            return Path(tempfile.gettempprefix() + "-nowhere")

    def _read_earlier(self) -> None:
        """The stages of an earlier run into the same OUT stay, each until it is run again."""
        if not os.environ.get("OUT"):
            return
        path = self.destination() / _SUMMARY
        if not path.exists():
            return
        try:
            record = json.loads(path.read_text())
            self.stages = {name: StageResult(**stage) for name, stage in record["stages"].items()}
            with tarfile.open(path.with_name(_ARCHIVE)) as archive:
                archive.extractall(self.folder, filter="data")
        except (OSError, ValueError, TypeError, KeyError, AttributeError, tarfile.TarError) as error:
            self.remark(f"what an earlier run left in OUT could not be read: {error}")


def _write(path: Path, text: str) -> None:
    """All of it or, with the disk full, what was there before."""
    unfinished = path.with_name(f"{path.name}.part")
    try:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _plain(value: Any) -> Any:
    """Without NaN and infinity, which JSON has not."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
