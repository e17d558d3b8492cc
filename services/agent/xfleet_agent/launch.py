"""The launcher: keeps the agent of the current release running, and goes back when a new release does not prove itself.

It is copied beside the releases and run by the system's Python, so it uses the standard library only and stays what it
was while releases come and go. Its directory:

    launch               this program
    releases/<version>/  environments
    current, previous    which of them
    update.json          an upgrade on probation, written by the agent before it switches
    connected            written by the agent that got onto the bus: its process number and release
    failed.json          an upgrade that was undone, for the old agent to report

SIGTERM is passed on (Xray goes on), SIGINT too (Xray is stopped in order).
"""

import contextlib
import ctypes
import fcntl
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

STARTS_MOST = 3
PROBATION_S = 60.0
LONGEST_PROBATION_S = 600.0
LOOK_EVERY_S = 0.25
STEADY_AFTER_S = 60.0
LONGEST_WAIT_S = 30.0
FIRST_WAIT_S = 0.5
END_TIMEOUT_S = 20.0
DIRECTORY_VARIABLE = "XFLEET_INSTALL_DIR"
_PR_SET_PDEATHSIG = 1
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD)


class Update(NamedTuple):
    """An upgrade on probation."""

    version: str
    release: str
    """Its directory's name; so for `previous`."""
    previous: str
    previous_version: str
    probation_s: float
    starts_count: int


class Launcher:
    """One agent at a time."""

    def __init__(self, directory: Path, arguments: list[str]) -> None:
        self._directory = directory
        self._arguments = arguments
        self._child = 0
        self._started_s = 0.0
        self._wait_s = FIRST_WAIT_S
        self._stopping = False
        self._update: Update | None = None
        self._deadline_s = 0.0

    def run(self) -> int:
        """Runs until a signal asks for the end; the exit code."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        self._start()
        while True:
            got = signal.sigtimedwait(_SIGNALS, LOOK_EVERY_S if self._update or not self._child else 3600.0)
            if got is not None and got.si_signo in {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}:
                self._stopping = True
                self._pass_on(signal.SIGINT if got.si_signo == signal.SIGINT else signal.SIGTERM)
            status = self._reap()
            if status is not None:
                self._on_end(status)
            if self._stopping and not self._child:
                return 0
            if self._child:
                self._judge()
            elif time.monotonic() - self._started_s >= self._wait_s:
                self._start()

    def _start(self) -> None:
        self._update = self._find_update()
        if self._update is not None:
            if self._update.starts_count >= STARTS_MOST:
                self._undo(f"it ended {STARTS_MOST} times before it was connected")
            else:
                self._update = self._update._replace(starts_count=self._update.starts_count + 1)
                self._write("update.json", self._update._asdict())
                if self._update.starts_count == 1 or not self._deadline_s:
                    self._deadline_s = time.monotonic() + self._update.probation_s
        program = self._directory / "current" / "bin" / "xfleet-agent"
        self._started_s = time.monotonic()
        self._child = os.fork()
        if not self._child:
            self._become(program)

    def _become(self, program: Path) -> None:
        """Only in the child: ends with us, hears all signals again, and is the agent."""
        try:
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            environment = {**os.environ, DIRECTORY_VARIABLE: str(self._directory)}
            os.execve(program, [str(program), "run", *self._arguments], environment)  # noqa: S606
        except OSError as error:
            say(f"{program} cannot be run: {error.strerror}")
        finally:
            os._exit(127)

    def _reap(self) -> int | None:
        """The agent's exit code if it has ended; whatever else has become our child is only taken note of."""
        status: int | None = None
        while True:
            try:
                pid, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return status
            if not pid:
                return status
            if pid == self._child:
                self._child, status = 0, os.waitstatus_to_exitcode(code)

    def _on_end(self, status: int) -> None:
        if self._stopping:
            return
        if time.monotonic() - self._started_s > STEADY_AFTER_S:
            self._wait_s = FIRST_WAIT_S
        if status == 0:
            self._wait_s = 0.0
            return
        self._wait_s = min(LONGEST_WAIT_S, max(FIRST_WAIT_S, self._wait_s * 2))
        if self._update is not None:
            self._wait_s = FIRST_WAIT_S
        say(f"the agent ended with {status}; starting it again in {self._wait_s:.1f} s")

    def _judge(self) -> None:
        """Ends a probation: well, when the new agent says it is connected; badly, when its time is over."""
        if self._update is None or self._stopping:
            return
        if self._is_connected():
            say(f"release {self._update.version} is connected and stays")
            (self._directory / "update.json").unlink(missing_ok=True)
            self._update, self._deadline_s = None, 0.0
        elif time.monotonic() > self._deadline_s:
            self._end_child()
            self._undo(f"it was not connected within {self._update.probation_s:.0f} s")
            self._wait_s = 0.0

    def _is_connected(self) -> bool:
        try:
            return int(self._read("connected")["pid"]) == self._child
        except (KeyError, TypeError, ValueError):
            return False

    def _end_child(self) -> None:
        self._pass_on(signal.SIGTERM)
        deadline_s = time.monotonic() + END_TIMEOUT_S
        while self._child and time.monotonic() < deadline_s:
            signal.sigtimedwait((signal.SIGCHLD,), LOOK_EVERY_S)
            self._reap()
        while self._child:
            self._pass_on(signal.SIGKILL)
            signal.sigtimedwait((signal.SIGCHLD,), LOOK_EVERY_S)
            self._reap()

    def _undo(self, reason: str) -> None:
        """Makes the previous release the current one again, and leaves word of it."""
        update = self._update
        if update is None:
            return
        say(f"release {update.version} goes: {reason}; back to {update.previous_version}")
        told = {"version": update.version, "previous": update.previous_version, "reason": reason}
        self._write("failed.json", {**told, "at_ms": time.time_ns() // 1_000_000})
        self._point("current", update.previous)
        (self._directory / "update.json").unlink(missing_ok=True)
        self._update, self._deadline_s = None, 0.0

    def _find_update(self) -> Update | None:
        """The upgrade on probation; one that was torn before its switch is forgotten."""
        found = self._read("update.json")
        if found is None:
            (self._directory / "update.json").unlink(missing_ok=True)
            return None
        try:
            update = Update(
                version=str(found["version"]),
                release=_plain(found["release"]),
                previous=_plain(found["previous"]),
                previous_version=str(found["previous_version"]),
                probation_s=min(LONGEST_PROBATION_S, max(1.0, float(found.get("probation_s", PROBATION_S)))),
                starts_count=int(found.get("starts_count", 0)),
            )
            switched = (self._directory / "current").readlink().name == update.release
        except (KeyError, TypeError, ValueError, OSError):
            switched, update = False, None
        if not switched or not (self._directory / "releases" / (update.previous if update else "")).is_dir():
            (self._directory / "update.json").unlink(missing_ok=True)
            return None
        return update

    def _point(self, name: str, release: str) -> None:
        partial = self._directory / f".{name}.new"
        partial.unlink(missing_ok=True)
        partial.symlink_to(Path("releases") / release)
        partial.replace(self._directory / name)

    def _pass_on(self, signum: int) -> None:
        if self._child:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._child, signum)

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._directory / name).read_bytes())
        except (OSError, ValueError):
            return None

    def _write(self, name: str, value: object) -> None:
        partial = self._directory / f".{name}.new"
        with partial.open("w", encoding="utf-8") as file:
            json.dump(value, file)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(self._directory / name)


def say(line: str) -> None:
    """One line to whoever keeps our output."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"xfleet launcher: {line}\n")
        sys.stderr.flush()


def main() -> int:
    """Takes the directory for itself and runs; the exit code."""
    directory = Path(__file__).resolve().parent
    os.umask(0o077)
    try:
        lock = os.open(directory / "launch.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        say(f"another launcher already runs in {directory}")
        return 2
    except OSError as error:
        say(f"{directory} cannot be used: {error.strerror}")
        return 2
    os.ftruncate(lock, 0)
    os.write(lock, b"%d\n" % os.getpid())
    return Launcher(directory, sys.argv[1:]).run()


def _plain(name: object) -> str:
    """The name of a directory in `releases`. Raises `ValueError` for anything that leads elsewhere."""
    text = str(name)
    if not text or "/" in text or text.startswith("."):
        raise ValueError(text)
    return text


if __name__ == "__main__":
    sys.exit(main())
