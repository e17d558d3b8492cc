"""`xfleet service install | uninstall | status`: `xfleet up` under systemd."""

import os
import pwd
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from xfleet_cli.care.unit import Unit, render
from xfleet_cli.up.announce import say
from xfleet_cli.up.command import up
from xfleet_cli.up.parts import script
from xfleet_cli.up.settings import UpSettings, data_directory
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import lock_exclusively, private_directory, write_private

SYSTEM_UNITS = Path("/etc/systemd/system")
SYSTEMCTL_TIMEOUT_S = 120
NOT_ACTIVE = 3
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,60}")


class Manager:
    """A service manager: the machine's, or a person's own."""

    def __init__(self, name: str, *, personal: bool) -> None:
        if not _NAME.fullmatch(name):
            raise Unusable(f"{name!r} cannot be a service's name. Use letters, digits, - and _.")
        self.service = f"{name}.service"
        self._scope = ["--user"] if personal else []
        config = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
        self._units = Path(config).expanduser() / "systemd/user" if personal else SYSTEM_UNITS

    @property
    def unit_file(self) -> Path:
        """Where the unit lies."""
        return self._units / self.service

    def require(self) -> None:
        """Raises `Unusable` where no systemd runs."""
        if shutil.which("systemctl") is None or self.run("show", "--property=Version", check=False).returncode != 0:
            hint = "Run `xfleet up` under the service manager you have; `--dry-run` prints a unit to start from."
            raise Unusable(f"systemd does not run here. {hint}")

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """`systemctl WORDS`. Raises `Unusable` with its reason."""
        command = ["systemctl", *self._scope, *words]
        try:
            done = subprocess.run(  # noqa: S603  words of our own
                command, capture_output=True, text=True, timeout=SYSTEMCTL_TIMEOUT_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Unusable(f"{' '.join(command)} failed: {error}.") from error
        if check and done.returncode != 0:
            reason = (done.stderr or done.stdout).strip().splitlines()
            raise Unusable(f"{' '.join(command)} failed: {reason[-1] if reason else done.returncode}")
        return done

    def is_active(self) -> bool:
        """Whether the service runs."""
        return self.run("is-active", "--quiet", self.service, check=False).returncode == 0


@click.group()
def service() -> None:
    """Run `xfleet up` as a system service (systemd)."""


def _common(command: Any) -> Any:
    name = click.option("--name", default="xfleet", show_default=True, help="Of the service.")
    own = click.option("--user", "personal", is_flag=True, default=None, help="Your own manager. [unless root]")
    return name(own(command))


def _manager(name: str, personal: bool | None) -> tuple[Manager, bool]:
    chosen = os.geteuid() != 0 if personal is None else personal
    return Manager(name, personal=chosen), chosen


@service.command(context_settings={"ignore_unknown_options": True})
@_common
@click.option("--data-dir", type=click.Path(path_type=Path), help="Where everything lives. [as `xfleet up`]")
@click.option("--run-as", default="", metavar="ACCOUNT", help="Instead of root.")
@click.option("--dry-run", is_flag=True, help="Print the unit and change nothing.")
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def install(
    name: str, data_dir: Path | None, run_as: str, options: Sequence[str], *, personal: bool | None, dry_run: bool
) -> None:
    """Write the unit, enable and start it; further OPTIONS are those of `xfleet up`."""
    manager, personal = _manager(name, personal)
    _check_options(options)
    given = data_dir or (Path(found) if (found := os.environ.get("XFLEET_DATA_DIR")) else None)
    root = data_directory(UpSettings(data_dir=given))
    program = Path(script("xfleet")).absolute()
    unit = Unit(program=program, data_dir=root, options=options, run_as=run_as, personal=personal)
    text = render(unit)
    if dry_run:
        sys.stdout.write(text)
        return
    if not personal and os.geteuid() != 0:
        raise Unusable("A system service needs root. Run it with sudo, or give --user.")
    manager.require()
    active = manager.is_active()
    if not active and root.exists():
        os.close(lock_exclusively(root / "up.lock", owner="xfleet up"))
    _make_directory(root, run_as)
    changed = not manager.unit_file.exists() or manager.unit_file.read_text(encoding="utf-8") != text
    _put(manager.unit_file, text)
    manager.run("daemon-reload")
    manager.run("enable", manager.service)
    manager.run("restart" if active and changed else "start", manager.service)
    say(f"{manager.service} runs and starts with the machine. Data: {root}")
    say(f"Its words, with the first password: journalctl {'--user ' if personal else ''}-u {manager.service}")
    if personal:
        say("So that it runs while you are signed out: loginctl enable-linger")


@service.command()
@_common
def uninstall(name: str, *, personal: bool | None) -> None:
    """Stop and disable the service and remove its unit; the data stays."""
    manager, _ = _manager(name, personal)
    manager.require()
    if not manager.unit_file.exists():
        say(f"{manager.service} is not installed; nothing to do.")
        return
    manager.run("disable", "--now", manager.service)
    try:
        manager.unit_file.unlink()
    except OSError as error:
        raise Unusable(f"Cannot remove {manager.unit_file}: {error.strerror}. Run it with sudo.") from error
    manager.run("daemon-reload")
    say(f"{manager.service} is stopped and removed. The data directory was left as it is.")


@service.command()
@_common
@click.pass_context
def status(context: click.Context, name: str, *, personal: bool | None) -> None:
    """Say whether it is installed, enabled and running; exit code 0 when it runs, 3 when it does not."""
    manager, _ = _manager(name, personal)
    manager.require()
    answer = manager.run(
        "show", manager.service, "--property=LoadState,UnitFileState,ActiveState,SubState,MainPID", check=False
    ).stdout
    facts = dict(line.split("=", 1) for line in answer.splitlines() if "=" in line)
    if facts.get("LoadState") != "loaded":
        say(f"{manager.service} is not installed. Install it with: xfleet service install")
        context.exit(NOT_ACTIVE)
    pid = facts.get("MainPID", "0")
    enabled = "starts with the machine" if facts.get("UnitFileState") == "enabled" else "does not start by itself"
    state = f"{facts.get('ActiveState', 'unknown')} ({facts.get('SubState', '')})"
    say(f"{manager.service}: {state}, {enabled}{f', process {pid}' if pid != '0' else ''}")
    context.exit(0 if facts.get("ActiveState") == "active" else NOT_ACTIVE)


def _check_options(options: Sequence[str]) -> None:
    """Raises `Unusable` for what `xfleet up` would not take, now rather than in a log."""
    own: Callable[..., click.Context] = up.make_context
    try:
        own("up", list(options), resilient_parsing=False)
    except click.ClickException as error:
        raise Unusable(f"`xfleet up` does not take this: {error.format_message()}") from error
    if any(word.startswith(("--bot-token", "--data-dir")) for word in options):
        raise Unusable(
            "Secrets do not belong in a unit: put XFLEET_BOT_TOKEN=… into /etc/xfleet/xfleet.env (mode 0600)."
        )


def _make_directory(root: Path, run_as: str) -> None:
    private_directory(root)
    if not run_as:
        return
    try:
        account = pwd.getpwnam(run_as)
        os.chown(root, account.pw_uid, account.pw_gid)
    except KeyError as error:
        raise Unusable(f"There is no account {run_as}. Make it first: useradd --system {run_as}") from error
    except OSError as error:
        raise Unusable(f"Cannot give {root} to {run_as}: {error.strerror}.") from error


def _put(path: Path, text: str) -> None:
    try:
        write_private(path, text.encode(), mode=0o644)
    except OSError as error:
        raise Unusable(f"Cannot write {path}: {error.strerror}. Run it with sudo, or give --user.") from error
