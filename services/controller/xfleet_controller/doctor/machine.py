"""What can be told from this machine alone: directory, keys, space, ports, certificates, backups, service, versions."""

import errno
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta
from importlib.metadata import version
from pathlib import Path

import msgspec

from xfleet_controller.backups.store import list_backups
from xfleet_controller.config import ControllerSettings
from xfleet_controller.doctor.findings import Finding, failed, ok, warning
from xfleet_controller.fleet.keyring import find_root
from xfleet_nats.process import find_nats_server
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively
from xfleet_runtime.keys import x509
from xfleet_runtime.keys.sealed import KeyFile

LOW_BYTES, VERY_LOW_BYTES = 1024**3, 128 * 1024**2
EXPIRY_WARNING = timedelta(days=21)
BACKUP_WARNING = timedelta(days=8)
SYSTEMCTL_TIMEOUT_S = 5
PART_COUNT = 3


class Memory(msgspec.Struct, frozen=True, kw_only=True):
    """What `xfleet up` remembers: the little of it that is looked at here."""

    panel_port: int | None = None
    broker_port: int | None = None
    base_path: str = ""


def recall(data_dir: Path) -> Memory | None:
    """What `xfleet up` remembered; None where it never ran."""
    try:
        return msgspec.json.decode((data_dir / "up.json").read_bytes(), type=Memory)
    except (OSError, msgspec.MsgspecError):
        return None


def is_running(data_dir: Path) -> bool:
    """Whether somebody holds a lock on the directory."""
    for name in ("up.lock", "controller.lock"):
        if (data_dir / name).exists():
            try:
                os.close(lock_exclusively(data_dir / name, owner=""))
            except Unusable:
                return True
    return False


def check_directory(data_dir: Path) -> Iterator[Finding]:
    """Rights and space."""
    found = data_dir.stat()
    if found.st_uid != os.geteuid() and os.geteuid() != 0:
        yield failed("data-dir", f"{data_dir} belongs to another account", "run this as that account, or as root")
    elif not os.access(data_dir, os.W_OK):
        yield failed("data-dir", f"{data_dir} cannot be written", "make it writable")
    elif found.st_mode & 0o077:
        yield warning("data-dir", f"{data_dir} is open to others ({found.st_mode & 0o777:o})", f"chmod 700 {data_dir}")
    else:
        yield ok("data-dir", str(data_dir))
    usage = shutil.disk_usage(data_dir)
    told = f"{usage.free / 1024**3:.1f} GiB of {usage.total / 1024**3:.1f} GiB are free"
    if usage.free < VERY_LOW_BYTES:
        yield failed("disk", told, "free space now: the database cannot grow")
    elif usage.free < LOW_BYTES:
        yield warning("disk", told, "free space soon")
    else:
        yield ok("disk", told)


def check_keys(settings: ControllerSettings) -> Iterator[Finding]:
    """Key file and fleet root."""
    try:
        KeyFile.load(settings.key_file)
        yield ok("key-file", str(settings.key_file))
    except FileNotFoundError:
        yield failed("key-file", f"{settings.key_file} is missing", "put it back from a backup (xfleet restore)")
    except Unusable as error:
        yield failed("key-file", str(error), "")
    try:
        root = find_root(settings.root_file)
        where = "at hand" if root else "offline: broker addresses cannot change until its file is back"
        yield ok("fleet-root", where)
    except Unusable as error:
        yield failed("fleet-root", str(error), "")


def check_panel_certificate(settings: ControllerSettings, now: datetime) -> Iterator[Finding]:
    """The certificate that browsers see, where this machine has it."""
    for path in (settings.tls_cert, settings.data_dir / "tls" / "panel.crt"):
        if path is not None and path.exists():
            try:
                yield expiry("panel-cert", str(path), x509.expires_at(path.read_text(encoding="ascii")), now)
            except (OSError, ValueError) as error:
                yield failed("panel-cert", f"{path} cannot be read: {error}", "give another with --tls-cert")


def expiry(check: str, what: str, ends_at: datetime, now: datetime) -> Finding:
    """A certificate's life."""
    if ends_at <= now:
        return failed(check, f"{what} expired on {ends_at:%Y-%m-%d}", "restart xfleet: it renews its own certificates")
    if ends_at - now < EXPIRY_WARNING:
        return warning(check, f"{what} expires on {ends_at:%Y-%m-%d}", "restart xfleet, or renew the file")
    return ok(check, f"{what} is good until {ends_at:%Y-%m-%d}")


def check_ports(memory: Memory | None, *, running: bool) -> Iterator[Finding]:
    """Whether a stopped `xfleet up` would get its ports again, and a running one answers on them."""
    if memory is None:
        return
    for what, port in (("panel", memory.panel_port), ("broker", memory.broker_port)):
        if port is None:
            continue
        taken = _is_taken(port)
        if running and not taken:
            yield failed("ports", f"nobody listens on the {what}'s port {port}", "see the logs in the data directory")
        elif not running and taken:
            yield failed("ports", f"the {what}'s port {port} is used by another program", "stop it: ss -ltnp")
        else:
            yield ok("ports", f"{what} {port}: {'listening' if running else 'free'}")


def _is_taken(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.errno == errno.EADDRINUSE
    return False


def check_backups(directory: Path, every_hours: int, now: datetime) -> Finding:
    """How old the newest backup is."""
    found = list_backups(directory)
    most = timedelta(hours=2 * every_hours) if every_hours else BACKUP_WARNING
    if not found:
        return warning("backups", f"there is none in {directory}", "xfleet backup, or plan them in the panel")
    age = now - found[0].made_at
    told = f"{len(found)} in {directory}, the newest is {_words(age)} old"
    return warning("backups", told, "xfleet backup") if age > most else ok("backups", told)


def _words(age: timedelta) -> str:
    hours = int(age.total_seconds() // 3600)
    return f"{hours // 24} days" if hours >= 48 else f"{hours} hours" if hours else "less than an hour"  # noqa: PLR2004


def check_service() -> Finding:
    """Whether it starts with the machine."""
    if shutil.which("systemctl") is None or not Path("/run/systemd/system").is_dir():
        return ok("service", "no systemd here")
    for scope in ([], ["--user"]):
        try:
            done = subprocess.run(  # noqa: S603  words of our own
                ["systemctl", *scope, "is-enabled", "xfleet.service"],  # noqa: S607  from the path, as people call it
                capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):
            continue
        if done.stdout.strip() == "enabled":
            return ok("service", "xfleet.service starts with the machine")
    return warning("service", "it does not start with the machine", "xfleet service install")


def check_versions() -> Iterator[Finding]:
    """What is installed."""
    python = ".".join(str(part) for part in sys.version_info[:PART_COUNT])
    yield ok("versions", f"xfleet {version('xfleet')} on Python {python}")
    try:
        yield ok("nats-server", str(find_nats_server()))
    except Unusable as error:
        yield warning("nats-server", str(error), "needed only where the broker runs on this machine")
