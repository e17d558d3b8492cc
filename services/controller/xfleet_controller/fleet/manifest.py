"""The manifest agents believe in: made and signed anew when its contents changed and the root is at hand."""

import base64
from pathlib import Path
from typing import Any

import msgspec

from xfleet_contracts.enrollment import Manifest, SignedManifest
from xfleet_controller.db import Database
from xfleet_controller.fleet import store
from xfleet_controller.fleet.keyring import find_root
from xfleet_nats.fleet import FleetKeys
from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.keys import signing
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
SETTING = "manifest"


async def ensure_manifest(
    database: Database,
    keys: FleetKeys,
    root_file: Path,
    clock: Clock,
    *,
    broker_urls: tuple[str, ...],
    panel_urls: tuple[str, ...] = (),
) -> SignedManifest:
    """The newest manifest, signed again with a higher serial when something in it changed.

    Without the root's file the old one stays, and that is said. Raises `Unusable` when there is none at all.
    """
    async with database.read() as session:
        held = _from_setting(await store.find_setting(session, SETTING))
    current = signing.open_manifest(keys.root_public, held) if held is not None else None
    wanted = Manifest(
        fleet_id=keys.fleet_id,
        serial=current.serial if current else 1,
        issued_at_ms=current.issued_at_ms if current else clock.now_ms(),
        command_keys=tuple(signing.command_key(keys.command_key(name)) for name in sorted(keys.command_seeds)),
        ca_pem=keys.ca_pem,
        broker_urls=broker_urls,
        tls_name=keys.tls_name,
        panel_urls=panel_urls,
    )
    if held is not None and wanted == current:
        return held
    root = find_root(root_file)
    if root is None:
        if held is None:
            raise Unusable(f"The fleet root {root_file} is missing. It is needed once to sign the first manifest.")
        _log.warning("the manifest should change but the fleet root is offline: the old one stays", file=str(root_file))
        return held
    if current is not None:
        wanted = msgspec.structs.replace(wanted, serial=current.serial + 1, issued_at_ms=clock.now_ms())
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
