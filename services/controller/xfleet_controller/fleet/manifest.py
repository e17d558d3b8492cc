"""The manifest agents believe in: made and signed anew when its contents changed and the root is at hand."""

import asyncio
import base64
import socket
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.enrollment import Manifest, SignedManifest
from xfleet_contracts.heartbeat import Heartbeat
from xfleet_controller.bus import Commander
from xfleet_controller.config import ControllerSettings
from xfleet_controller.db import Database
from xfleet_controller.fleet import store
from xfleet_controller.fleet.keyring import find_root
from xfleet_controller.fleet.service import Fleet
from xfleet_nats.fleet import FleetKeys
from xfleet_runtime.broker import BrokerOutage
from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys import signing
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
SETTING = "manifest"
BROKER_PUBLIC_URLS = "broker_public_urls"
"""Setting: where machines elsewhere find the broker."""
MANIFEST_VERB = "manifest"
RESTORED = "restored_at_ms"
"""Since when the database is an older copy of itself: agents may hold a newer manifest than it knows."""
BEHIND_COUNT = 10_000


async def with_public(session: AsyncSession, own: tuple[str, ...]) -> tuple[str, ...]:
    """The addresses agents get: our own first (elsewhere they fail at once), then those for machines elsewhere."""
    public = await store.find_setting(session, BROKER_PUBLIC_URLS) or ()
    return tuple(dict.fromkeys((*own, *public)))


def panel_urls(settings: ControllerSettings) -> tuple[str, ...] | None:
    """Where agents find the panel when the broker refuses them; None while nobody knows."""
    if settings.public_url:
        return (settings.public_url.rstrip("/"),)
    if not settings.port:
        return None
    host = settings.listen
    if host in {"0.0.0.0", "::", ""}:  # noqa: S104  compared with, not bound
        host = default_address() or "127.0.0.1"
    scheme = "https" if settings.tls else "http"
    return (f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.prefix}",)


def default_address() -> str:
    """The address of the default route; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


async def ensure_manifest(
    database: Database,
    keys: FleetKeys,
    root_file: Path,
    clock: Clock,
    *,
    broker_urls: tuple[str, ...],
    panel_urls: tuple[str, ...] | None = None,
) -> SignedManifest:
    """The newest manifest, signed again with a higher serial when something in it changed.

    Without `panel_urls` those of the present one stay.

    Without the root's file the old one stays, and that is said. Raises `Unusable` when there is none at all.
    """
    async with database.read() as session:
        held = _from_setting(await store.find_setting(session, SETTING))
        restored_at_ms = int(await store.find_setting(session, RESTORED) or 0)
    current = signing.open_manifest(keys.root_public, held) if held is not None else None
    wanted = Manifest(
        fleet_id=keys.fleet_id,
        serial=current.serial if current else 1,
        issued_at_ms=current.issued_at_ms if current else clock.now_ms(),
        command_keys=tuple(signing.command_key(keys.command_key(name)) for name in sorted(keys.command_seeds)),
        ca_pem=keys.ca_pem,
        broker_urls=broker_urls,
        tls_name=keys.tls_name,
        panel_urls=panel_urls if panel_urls is not None else current.panel_urls if current else (),
    )
    if held is not None and current is not None and wanted == current and restored_at_ms < current.issued_at_ms:
        return held
    root = find_root(root_file)
    if root is None:
        if held is None:
            raise Unusable(f"The fleet root {root_file} is missing. It is needed once to sign the first manifest.")
        _log.warning("the manifest should change but the fleet root is offline: the old one stays", file=str(root_file))
        return held
    if current is not None:
        above = clock.now_ms() // 1000 if restored_at_ms else 0  # what was signed after the backup, and is forgotten
        serial = max(current.serial + 1, above)
        wanted = msgspec.structs.replace(wanted, serial=serial, issued_at_ms=max(clock.now_ms(), restored_at_ms + 1))
    signed = signing.sign_manifest(root.manifest_key, wanted)
    async with database.write() as session:
        value = {name: base64.b64encode(getattr(signed, name)).decode() for name in ("payload", "signature")}
        await store.set_setting(session, SETTING, value, clock.now())
    _log.info("manifest signed", serial=wanted.serial)
    return signed


def _from_setting(value: Any) -> SignedManifest | None:
    if value is None:
        return None
    return SignedManifest(payload=base64.b64decode(value["payload"]), signature=base64.b64decode(value["signature"]))


class ManifestTeller:
    """Sends the manifest to agents whose beats name an older serial."""

    def __init__(self, commander: Commander, fleet: Fleet) -> None:
        self._commander = commander
        self._fleet = fleet
        self._known = (fleet.manifest, _serial_of(fleet))
        self._behind: asyncio.Queue[str] = asyncio.Queue(maxsize=BEHIND_COUNT)

    def on_beat(self, sid: str, beat: Heartbeat) -> None:
        """Notes who is behind."""
        if self._known[0] is not self._fleet.manifest:
            self._known = (self._fleet.manifest, _serial_of(self._fleet))
        if beat.manifest_serial < self._known[1] and not self._behind.full():
            self._behind.put_nowait(sid)

    async def run(self) -> None:
        """Tells them, for ever; a loss is repaired by the next beat."""
        while True:
            sid = await self._behind.get()
            try:
                await self._commander.send(sid, MANIFEST_VERB, self._fleet.manifest)
            except BrokerOutage as outage:
                _log.info("a manifest could not be sent", sid=sid, reason=str(outage))


def _serial_of(fleet: Fleet) -> int:
    return signing.open_manifest(fleet.issuer.keys.root_public, fleet.manifest).serial
