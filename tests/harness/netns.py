"""A machine behind NAT: a network namespace that can call out through a router and that nobody can call.

The host has no route to it; the router (another namespace) masquerades, as every home router does.
"""

import asyncio
import os
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from harness.real import is_missing


@dataclass(frozen=True)
class Behind:
    """The namespace behind the router."""

    name: str
    host_address: str
    """Under which it reaches this machine."""
    inner_address: str
    """Its own, which nobody outside can reach."""

    router: str
    router_address: str
    """What the router shows to this machine."""

    async def forward(self, port: int) -> None:
        """Has the router lead this port inside, as people set it up for a server at home."""
        to = f"dnat to {self.inner_address}:{port}"
        await _run(f"ip netns exec {self.router} nft add rule ip nat in tcp dport {port} {to}")

    def command(self, *words: str) -> tuple[str, ...]:
        """The same command, run there."""
        return ("ip", "netns", "exec", self.name, *words)


class Here(Behind):
    """This machine itself, in place of the one behind the router."""

    def command(self, *words: str) -> tuple[str, ...]:
        """The same command."""
        return words


def require_namespaces(config: pytest.Config) -> None:
    """Skips, or fails under `--require-real`, where namespaces or nftables are missing."""
    missing = [program for program in ("ip", "nft") if shutil.which(program) is None]
    if missing or os.geteuid() != 0:
        is_missing(config, f"needs root and {' and '.join(missing or ['nothing else'])}")
    probe = f"xfprobe{os.getpid()}"
    if subprocess.run(["ip", "netns", "add", probe], capture_output=True, check=False).returncode:
        is_missing(config, "network namespaces cannot be made here")
    subprocess.run(["ip", "netns", "del", probe], check=True)


@asynccontextmanager
async def behind_nat() -> AsyncIterator[Behind]:
    """A namespace behind a router, until the end of the block."""
    number = os.getpid() % 200 + 20
    tag = f"{os.getpid() % 100000}"
    router, inner = f"xfr{tag}", f"xfi{tag}"
    outer, within = f"10.{number}.77", f"192.168.{number}"
    steps = [
        f"ip netns add {router}",
        f"ip netns add {inner}",
        f"ip link add xfa{tag} type veth peer name xfb{tag} netns {router}",
        f"ip addr add {outer}.1/24 dev xfa{tag}",
        f"ip link set xfa{tag} up",
        f"ip netns exec {router} ip link add xfc type veth peer name xfd netns {inner}",
        f"ip netns exec {router} ip addr add {outer}.2/24 dev xfb{tag}",
        f"ip netns exec {router} ip link set xfb{tag} up",
        f"ip netns exec {router} ip addr add {within}.1/24 dev xfc",
        f"ip netns exec {router} ip link set xfc up",
        f"ip netns exec {router} ip link set lo up",
        f"ip netns exec {router} sysctl -q -w net.ipv4.ip_forward=1",
        f"ip netns exec {router} nft add table ip nat",
        f"ip netns exec {router} nft add chain ip nat out {{ type nat hook postrouting priority 100 ; }}",
        f"ip netns exec {router} nft add rule ip nat out oifname xfb{tag} masquerade",
        f"ip netns exec {router} nft add chain ip nat in {{ type nat hook prerouting priority -100 ; }}",
        f"ip netns exec {inner} ip link set lo up",
        f"ip netns exec {inner} ip addr add {within}.2/24 dev xfd",
        f"ip netns exec {inner} ip link set xfd up",
        f"ip netns exec {inner} ip route add default via {within}.1",
    ]
    try:
        for step in steps:
            await _run(step)
        yield Behind(inner, f"{outer}.1", f"{within}.2", router, f"{outer}.2")
    finally:
        for step in (f"ip netns del {inner}", f"ip netns del {router}", f"ip link del xfa{tag}"):
            await _run(step, check=False)


async def _run(command: str, *, check: bool = True) -> None:
    child = await asyncio.create_subprocess_exec(
        *command.split(), stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    _, errors = await child.communicate()
    assert not check or child.returncode == 0, f"{command}: {errors.decode()}"
