"""Runs as a program of its own in the child: reads a configuration from standard input and becomes Xray.

Called as `python -I -S wheel_child.py run|ask|probe DIRECTORY PARENT`, where DIRECTORY holds the `xray` package. With
`run` it outlives whoever started it; the others are questions, and end with the asker, the process PARENT. With
`probe`, binding and listening are denied first, so exit code 255 means "everything before opening ports was fine".
"""

import ctypes
import importlib
import os
import platform
import signal
import struct
import sys

NO_SECCOMP = 77
"""Exit code of a probe on a machine where binding cannot be denied."""

_ARCHITECTURES = {"x86_64": (0xC000003E, (49, 50)), "aarch64": (0xC00000B7, (200, 201))}
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_SECCOMP = 22
_FILTER_MODE = 2
_ALLOW = 0x7FFF0000
_EPERM = 0x00050001


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _deny_binding() -> bool:
    known = _ARCHITECTURES.get(platform.machine())
    if known is None:
        return False
    architecture, (bind, listen) = known
    program = b"".join(
        struct.pack("HBBI", *each)
        for each in (
            (0x20, 0, 0, 4),  # load the architecture
            (0x15, 0, 4, architecture),  # another one: allow
            (0x20, 0, 0, 0),  # load the number of the call
            (0x15, 1, 0, bind),
            (0x15, 0, 1, listen),
            (0x06, 0, 0, _EPERM),
            (0x06, 0, 0, _ALLOW),
        )
    )
    buffer = ctypes.create_string_buffer(program, len(program))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        return False
    loaded = _Program(len(program) // 8, ctypes.cast(buffer, ctypes.c_void_p))
    return libc.prctl(_PR_SET_SECCOMP, _FILTER_MODE, ctypes.byref(loaded), 0, 0) == 0


def _end_with(parent: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the asker is gone")


def main() -> None:
    """Becomes Xray; returns only when it was asked to stop."""
    mode, site, parent = sys.argv[1:4]
    if mode != "run":
        _end_with(int(parent))
    config = sys.stdin.buffer.read().decode()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    sys.path.insert(0, site)
    if mode == "probe" and not _deny_binding():
        sys.exit(NO_SECCOMP)
    importlib.import_module("xray").startFromJSON(config)  # only now: it starts threads


if __name__ == "__main__":
    main()
