"""Host: the machine's figures, as psutil sees them."""

import platform
import socket
import time
from pathlib import Path

import psutil

from xfleet_contracts.heartbeat import HostFigures

SOCKETS_EVERY_S = 30.0
"""Counting sockets walks all of /proc/net; not with every beat."""


class Host:
    """Remembers the last reading, because rates and CPU use are differences."""

    def __init__(self) -> None:
        self._network: tuple[float, int, int] | None = None
        self._sockets: tuple[float, int, int] = (-SOCKETS_EVERY_S, 0, 0)
        psutil.cpu_percent(interval=None)

    def read(self) -> HostFigures:
        """The figures now; rates are over the time since the last call."""
        memory, swap, disk = psutil.virtual_memory(), psutil.swap_memory(), psutil.disk_usage("/")
        up_total, down_total, up_rate, down_rate = self._read_network()
        tcp_count, udp_count = self._read_sockets()
        default_address = find_default_address()
        return HostFigures(
            cpu_percent=psutil.cpu_percent(interval=None),
            cpu_count=psutil.cpu_count() or 1,
            load_1m=psutil.getloadavg()[0],
            memory_total_bytes=memory.total,
            memory_used_bytes=memory.total - memory.available,
            swap_total_bytes=swap.total,
            swap_used_bytes=swap.used,
            disk_total_bytes=disk.total,
            disk_used_bytes=disk.used,
            network_up_bytes_s=up_rate,
            network_down_bytes_s=down_rate,
            network_up_total_bytes=up_total,
            network_down_total_bytes=down_total,
            tcp_connections_count=tcp_count,
            udp_sockets_count=udp_count,
            uptime_s=int(time.time() - psutil.boot_time()),
            os=_os_name(),
            kernel=platform.release(),
            arch=platform.machine(),
            hostname=socket.gethostname(),
            addresses=_addresses_beside(default_address),
            default_address=default_address,
        )

    def _read_network(self) -> tuple[int, int, int, int]:
        per_card = psutil.net_io_counters(pernic=True, nowrap=True)
        up = sum(each.bytes_sent for name, each in per_card.items() if name != "lo")
        down = sum(each.bytes_recv for name, each in per_card.items() if name != "lo")
        now = time.monotonic()
        then, self._network = self._network, (now, up, down)
        if then is None or now <= then[0]:
            return up, down, 0, 0
        elapsed_s = now - then[0]
        return up, down, max(0, int((up - then[1]) / elapsed_s)), max(0, int((down - then[2]) / elapsed_s))

    def _read_sockets(self) -> tuple[int, int]:
        now = time.monotonic()
        if now - self._sockets[0] >= SOCKETS_EVERY_S:
            self._sockets = (now, _count_sockets("TCP"), _count_sockets("UDP"))
        return self._sockets[1], self._sockets[2]


def _count_sockets(kind: str) -> int:
    """In-use sockets of a kind, IPv4 and IPv6, from the kernel's own summary."""
    count = 0
    for path in ("/proc/net/sockstat", "/proc/net/sockstat6"):
        try:
            lines = Path(path).read_text(encoding="ascii").splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split()
            if words and words[0] in {f"{kind}:", f"{kind}6:"}:
                count += int(words[2])
    return count


def find_default_address() -> str:
    """The address of the default route's interface; empty without one. Nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _addresses_beside(address: str) -> tuple[str, ...]:
    for cards in psutil.net_if_addrs().values():
        found = [each.address for each in cards if each.family in {socket.AF_INET, socket.AF_INET6}]
        if address and address in found:
            return tuple(each for each in found if not each.startswith("fe80:"))
    return (address,) if address else ()


def _os_name() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "Linux")
    except OSError:
        return platform.system()
