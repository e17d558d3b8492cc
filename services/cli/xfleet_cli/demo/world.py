"""The demo's servers, inbounds and clients, made through the panel like anybody's."""

import asyncio
import socket
from pathlib import Path
from typing import Any, NamedTuple

from xfleet_cli.demo.panel import WAIT_S, Panel

LOCAL_ID = 1
PLACES = (("Frankfurt", "Germany", ["eu"]), ("Tokyo", "Japan", ["asia"]), ("New York", "United States", ["us"]))
CLIENTS = ("anna", "boris", "chen", "dara", "elif", "farid")
ADDRESS = "127.0.0.1"
_QUOTA_BYTES = 20 * 1024**3


class Joining(NamedTuple):
    """A server whose agent has to be started."""

    name: str
    slug: str
    token: str


async def name_servers(panel: Panel) -> list[Joining]:
    """Names the local server and adds the others."""
    joining: list[Joining] = []
    for index, (name, region, tags) in enumerate(PLACES):
        facts = {"name": name, "region": region, "tags": tags, "public_address": ADDRESS}
        server_id = LOCAL_ID
        if index:
            made = await panel.call("POST", "/servers", facts)
            server_id = made["id"]
            joining.append(Joining(name, made["slug"], made["enrollment_token"]))
            facts = {}
        await panel.call("PATCH", f"/servers/{server_id}", facts | {"allow_private_destinations": True})
    return joining


async def wait_online(panel: Panel, *, timeout_s: float = 60.0) -> list[int]:
    """The ids of the servers, once all are online. Raises `TimeoutError`."""
    async with asyncio.timeout(timeout_s):
        while True:
            items = (await panel.call("GET", "/servers"))["items"]
            if len(items) >= len(PLACES) and all(each["status"] == "online" for each in items):
                return [each["id"] for each in items]
            await asyncio.sleep(0.3)


async def fill(panel: Panel, server_ids: list[int]) -> list[list[str]]:
    """An inbound on every server and the clients on all of them; each client's links."""
    inbound_ids: list[int] = []
    for server_id in server_ids:
        body = {
            "server_id": server_id,
            "remark": "web",
            "listen": ADDRESS,
            "port": free_port(),
            "protocol": "vless",
            "stream_settings": {"network": "ws", "security": "none", "wsSettings": {"path": "/chat"}},
        }
        inbound_ids.append((await panel.call("POST", f"/inbounds?wait={WAIT_S}", body))["id"])
    links: list[list[str]] = []
    for name in CLIENTS:
        body = {"name": name, "inbound_ids": inbound_ids, "total_bytes": _QUOTA_BYTES}
        made: dict[str, Any] = await panel.call("POST", f"/clients?wait={WAIT_S}", body)
        links.append(made["links"])
    return links


def free_port() -> int:
    """A port of loopback nobody listens on."""
    with socket.socket() as probe:
        probe.bind((ADDRESS, 0))
        return int(probe.getsockname()[1])


def agent_arguments(state_dir: Path, token_file: Path) -> list[str]:
    """For `xfleet-agent`."""
    return ["run", "--state-dir", str(state_dir), "--token-file", str(token_file)]
