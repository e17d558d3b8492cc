"""The systemd unit of `xfleet up`: rendered from where the program and the data really lie."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

STATE_ROOT = Path("/var/lib")
HOMES = (Path("/home"), Path("/root"), Path("/run/user"))
ENVIRONMENT_FILE = "/etc/xfleet/xfleet.env"
CAPABILITIES = "CAP_NET_BIND_SERVICE CAP_NET_ADMIN"
"""Ports below 1024, and closing the sockets of a client that was cut off."""


class Unit(msgspec.Struct, frozen=True, kw_only=True):
    """What a unit is made of."""

    program: Path
    data_dir: Path
    options: Sequence[str] = ()
    """For `xfleet up`."""
    run_as: str = ""
    """An account; empty: root, or whose manager runs it."""
    personal: bool = False
    """For a person's own service manager (`systemctl --user`)."""


def render(unit: Unit) -> str:
    """The unit's text."""
    lines = [
        "# xfleet as a service. Made by `xfleet service install`, which also writes it anew.",
        "# Xray outlives its agent on purpose, hence KillMode=process: a restart drops no connection of the VPN when",
        "# only the agent was upgraded; `systemctl stop` sends SIGTERM, which is an ordered stop of everything.",
        "[Unit]",
        "Description=xfleet: panel, broker and agent with Xray",
        *([] if unit.personal else ["After=network-online.target", "Wants=network-online.target"]),
        "StartLimitIntervalSec=0",
        "",
        "[Service]",
        "Type=exec",
        f"ExecStart={_command(unit)}",
        *([f"User={unit.run_as}"] if unit.run_as else []),
        *([] if unit.personal else [f"EnvironmentFile=-{ENVIRONMENT_FILE}"]),
        "KillMode=process",
        "TimeoutStopSec=90",
        "Restart=on-failure",
        "RestartSec=2",
        *(["NoNewPrivileges=yes"] if unit.personal else _hardening(unit)),
        "",
        "[Install]",
        f"WantedBy={'default.target' if unit.personal else 'multi-user.target'}",
        "",
    ]
    return "\n".join(lines)


def _command(unit: Unit) -> str:
    words = (str(unit.program), "up", "--data-dir", str(unit.data_dir), *unit.options)
    return " ".join(quoted(word) for word in words)


def _hardening(unit: Unit) -> list[str]:
    in_state_root = unit.data_dir.parent == STATE_ROOT
    state = [f"StateDirectory={unit.data_dir.name}", "StateDirectoryMode=0700"]
    return [
        *(state if in_state_root else [f"ReadWritePaths={quoted(str(unit.data_dir))}"]),
        "LimitNOFILE=1048576",
        f"AmbientCapabilities={CAPABILITIES}",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        f"ProtectHome={_home_protection(unit)}",
        "PrivateTmp=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectControlGroups=yes",
        "RestrictSUIDSGID=yes",
        "RestrictRealtime=yes",
        "LockPersonality=yes",
    ]


def _home_protection(unit: Unit) -> str:
    """Homes stay hidden unless the program or the data lies in one."""
    if any(unit.data_dir.is_relative_to(home) for home in HOMES):
        return "no"
    return "read-only" if any(unit.program.is_relative_to(home) for home in HOMES) else "yes"


def quoted(word: str) -> str:
    """A word as systemd reads it back: specifiers and variables are not expanded."""
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    plain = word and not any(char.isspace() or char in "\"'\\;" for char in word)
    return escaped if plain else f'"{escaped}"'
