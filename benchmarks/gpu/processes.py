"""Programs with a time limit, and an end for all that a session of processes started. The library alone is imported."""

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path


def limited(
    command: Sequence[str], seconds: float, environment: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """The exit code, None where it had to be killed with all its children, and what it printed."""
    with tempfile.TemporaryFile("w+", errors="replace") as output:  # a pipe would be held by a child that lives on
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
            env={**os.environ, **(environment or {})}, process_group=0,
        )  # fmt: skip
        code: int | None = None
        try:
            code = process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            with contextlib.suppress(subprocess.TimeoutExpired):  # one that waits for a device may outlive its kill
                process.wait(5)
        output.seek(0)
        return code, output.read()


def kill_session(leader: int) -> None:
    """Ends every process of the session that this one leads, in whatever group it is."""
    for process in [leader, *_of_session(leader)]:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(process, signal.SIGKILL)


def _of_session(leader: int) -> list[int]:
    """From /proc; where there is none, nobody."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            after_name = (entry / "stat").read_text().rpartition(")")[2].split()  # state, parent, group, session, ...
            if int(after_name[3]) == leader:
                found.append(int(entry.name))
    return found
