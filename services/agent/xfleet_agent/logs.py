"""Logs: which may be read, and their newest lines, whatever is in them.

A log is opened by its real path, which was settled when the agent started: a link that appears later leads nowhere.
"""

import os
import re
import stat
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import msgspec

from xfleet_contracts.logs import (
    MAX_LINE_BYTES,
    MAX_LINES,
    LogNotAllowed,
    LogsRead,
    LogText,
    LogUnreadable,
)
from xfleet_runtime.errors import Unusable

LOG_DIRECTORY = "logs"
AGENT_LOG = "agent.log"
FILE_OF = {"agent": AGENT_LOG, "xray_error": "error.log", "xray_access": "access.log"}
ANSWER_BYTES = 200 * 1024
"""Of lines in one message, as JSON."""
NEWEST_BYTES = 1024 * 1024
"""Looked at when every line counts."""
SEARCHED_BYTES = 32 * 1024 * 1024
"""Looked at for lines with a text in them."""
_CHUNK_BYTES = 64 * 1024
_CONTROLS = re.compile(r"[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028\u2029]")


def listed_logs(setting: str, state_dir: Path) -> frozenset[Path]:
    """The real paths of a `log_paths` setting. Raises `Unusable` for one that can never be a log to read."""
    found: set[Path] = set()
    for text in filter(None, (part.strip() for part in setting.split(","))):
        path = Path(text)
        if not path.is_absolute():
            raise Unusable(f"log_paths: {text!r} is not an absolute path. Correct the setting.")
        real = path.resolve()
        if real.is_relative_to(state_dir.resolve()):
            raise Unusable(f"log_paths: {text!r} is inside the agent's own state, which holds keys. Remove it.")
        found.add(real)
    return frozenset(found)


class LogFiles:
    """The logs of one agent."""

    def __init__(self, log_dir: Path, listed: frozenset[Path]) -> None:
        self._log_dir = log_dir
        self._listed = listed

    def path(self, log: str) -> Path:
        """Where a log lies. Raises `LogNotAllowed`."""
        if log in FILE_OF:
            return self._log_dir / FILE_OF[log]
        try:
            real = Path(log).resolve()
            if Path(log).is_absolute() and real in self._listed:
                return real
        except (OSError, ValueError, RuntimeError):
            pass
        raise LogNotAllowed(log=log[:200], allowed=[*FILE_OF, *sorted(map(str, self._listed))])

    def open(self, log: str) -> BinaryIO | None:
        """The log, opened; None while there is none. Raises `LogNotAllowed` or `LogUnreadable`."""
        return open_log(self.path(log))

    def read(self, order: LogsRead) -> LogText:
        """The newest lines of a log, the one it was rotated from included."""
        path = self.path(order.log)
        count = max(1, min(order.lines_count, MAX_LINES))
        wanted = order.contains.casefold()
        limit_bytes = SEARCHED_BYTES if wanted else NEWEST_BYTES
        found: deque[str] = deque(maxlen=count)
        size_bytes, cut = 0, False
        older = [path.with_name(f"{path.name}.1")] if order.log in FILE_OF else []
        for number, each in enumerate((path, *older)):
            if number and len(found) == count:
                break
            file = open_log(each)
            if file is None:
                continue
            with file:
                here_bytes = os.fstat(file.fileno()).st_size
                size_bytes = size_bytes or (0 if number else here_bytes)
                cut = cut or here_bytes > limit_bytes
                lines = deque(newest_lines(file, limit_bytes, wanted), maxlen=count - len(found))
            found.extendleft(reversed(lines))
        kept = fitting(found)
        enough = len(found) == count and len(kept) == count
        return LogText(
            log=order.log,
            lines=tuple(kept),
            truncated=not enough and (cut or len(kept) < len(found)),
            size_bytes=size_bytes,
        )


def open_log(path: Path) -> BinaryIO | None:
    """A plain file, opened without following a link that took its place. Raises `LogUnreadable`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LogUnreadable(f"The log cannot be read on that server: {error.strerror}.") from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise LogUnreadable("This is not a file with text in it.")
    return os.fdopen(descriptor, "rb", buffering=_CHUNK_BYTES)


def newest_lines(file: BinaryIO, limit_bytes: int, wanted: str) -> Iterator[str]:
    """The lines in the last so many bytes that hold the text, each cut to its limit."""
    size_bytes = os.fstat(file.fileno()).st_size
    start = max(0, size_bytes - limit_bytes)
    file.seek(start)
    if start and not _skip_line(file):
        file.seek(start)
    while line := file.readline(MAX_LINE_BYTES + 1):
        if not line.endswith(b"\n") and len(line) > MAX_LINE_BYTES:
            _skip_line(file)
        text = clean(line)
        if not wanted or wanted in text.casefold():
            yield text


def _skip_line(file: BinaryIO) -> bool:
    """Reads to the end of the line; False when the file ends before."""
    while part := file.readline(_CHUNK_BYTES):
        if part.endswith(b"\n"):
            return True
    return False


def clean(line: bytes) -> str:
    """A line as people can be shown it: UTF-8, nothing that moves a cursor, not longer than its limit."""
    text = line[: MAX_LINE_BYTES + 1].rstrip(b"\r\n")[:MAX_LINE_BYTES].decode("utf-8", "replace")
    text = _CONTROLS.sub("\ufffd", text)
    if len(text) * 4 <= MAX_LINE_BYTES:
        return text
    return text.encode()[:MAX_LINE_BYTES].decode("utf-8", "ignore")


def fitting(lines: Iterable[str]) -> list[str]:
    """The newest of these lines that fit into one message."""
    kept: list[str] = []
    room_bytes = ANSWER_BYTES
    for line in reversed(list(lines)):
        room_bytes -= len(msgspec.json.encode(line)) + 1
        if room_bytes < 0:
            break
        kept.append(line)
    return kept[::-1]


class Harvest(NamedTuple):
    """What a log gained."""

    lines: list[str]
    dropped_count: int


class Tail:
    """Follows one log from its end, through rotation and truncation."""

    def __init__(self, files: LogFiles, log: str, contains: str) -> None:
        self._files = files
        self._log = log
        self._wanted = contains.casefold()
        self._file: BinaryIO | None = None
        self._rest = b""
        self._began = False

    def close(self) -> None:
        """Lets go of the file."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def read(self, *, most_bytes: int = 8 * 1024 * 1024) -> Harvest:
        """New lines since the last call, the newest of too many. Raises `LogNotAllowed` or `LogUnreadable`."""
        path = self._files.path(self._log)
        found: deque[str] = deque(maxlen=MAX_LINES)
        count = 0
        for _ in range(2):  # what was written before a rotation, then what came after
            if self._file is None and not self._open():
                break
            for text in self._new_lines(most_bytes):
                count += 1
                found.append(text)
            if not self._was_replaced(path):
                break
            self.close()
        kept = fitting(found)
        return Harvest(kept, count - len(kept))

    def _open(self) -> bool:
        self._file = self._files.open(self._log)
        if self._file is None:
            self._began = True
            return False
        if not self._began:
            self._file.seek(0, os.SEEK_END)
            self._began = True
        return True

    def _was_replaced(self, path: Path) -> bool:
        if self._file is None:
            return False
        here = os.fstat(self._file.fileno())
        try:
            there = path.lstat()
        except OSError:
            return False
        return (here.st_ino, here.st_dev) != (there.st_ino, there.st_dev)

    def _new_lines(self, most_bytes: int) -> Iterator[str]:
        file = self._file
        if file is None:
            return
        if os.fstat(file.fileno()).st_size < file.tell():
            file.seek(0)
            self._rest = b""
        while most_bytes > 0 and (chunk := file.read(_CHUNK_BYTES)):
            most_bytes -= len(chunk)
            first, *others = chunk.split(b"\n")
            self._rest = (self._rest + first)[: MAX_LINE_BYTES + 1]
            for part in others:
                text = clean(self._rest)
                self._rest = part[: MAX_LINE_BYTES + 1]
                if not self._wanted or self._wanted in text.casefold():
                    yield text
