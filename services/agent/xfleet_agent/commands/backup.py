"""`backup` and `restore`: certificates and geo files of this machine, as a blob."""

import shutil
from typing import Any

import msgspec

from xfleet_agent.aside import aside
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.care import BACKUP, RESTORE, BackupOrder, BlobSent, Restored, RestoreOrder
from xfleet_contracts.commands import TIMEOUT_S

SHARE_OF_TIME = 0.9
"""Of an order's time limit; the rest is for the answer."""
SECRET_SETTINGS = frozenset({"broker_proxy"})


def verbs(parts: Parts) -> dict[str, Verb]:
    """Name to how it is carried out."""

    async def on_backup(body: msgspec.Raw) -> BlobSent:
        return await _backup(parts, codec.decode(bytes(body), BackupOrder))

    async def on_restore(body: msgspec.Raw) -> Restored:
        try:
            return await _restore(parts, codec.decode(bytes(body), RestoreOrder))
        finally:
            parts.beat.set()

    return {BACKUP: Verb(handler=on_backup, at_once=1), RESTORE: Verb(handler=on_restore, at_once=1)}


async def _backup(parts: Parts, order: BackupOrder) -> BlobSent:
    from xfleet_agent.backup import Contents, write_archive  # noqa: PLC0415  needed by this verb only
    from xfleet_agent.blobs import check_transfer, send_blob  # noqa: PLC0415  as above

    check_transfer(order.transfer)
    file = parts.installer.setups.incoming()
    try:
        contents = Contents(
            certificates=await aside(lambda: parts.certificates().files()),
            geo_files=await aside(parts.installer.setups.geo_files, parts.driver.setup),
            settings=_settings(parts),
            states={"wanted": parts.store.wanted, "good": await parts.worker.run(parts.store.load_good)},
        )
        await aside(write_archive, contents, file)
        return await send_blob(parts.link, parts.sid, order.transfer, file, timeout_s=TIMEOUT_S[BACKUP] * SHARE_OF_TIME)
    finally:
        file.unlink(missing_ok=True)


def _settings(parts: Parts) -> dict[str, Any]:
    """The settings with what may hold a password left out."""
    plain: dict[str, Any] = msgspec.to_builtins(parts.settings, enc_hook=str)
    return {name: value for name, value in plain.items() if name not in SECRET_SETTINGS}


def _place(parts: Parts, name: str, certificate_pem: bytes, key_pem: bytes) -> None:
    parts.certificates().restore(name, certificate_pem, key_pem)


async def _restore(parts: Parts, order: RestoreOrder) -> Restored:
    from xfleet_agent.backup import read_archive  # noqa: PLC0415  needed by this verb only
    from xfleet_agent.blobs import fetch_blob  # noqa: PLC0415  as above

    file, unpacked = parts.installer.setups.incoming(), parts.installer.setups.incoming()
    unpacked.mkdir(mode=0o700)
    try:
        await fetch_blob(parts.calls, order, file, timeout_s=TIMEOUT_S[RESTORE] * SHARE_OF_TIME)
        found = await aside(read_archive, file, unpacked)
        if found.geo_files:
            await parts.installer.place_geo(found.geo_files)
        for name, (certificate, key) in found.certificates.items():
            await aside(_place, parts, name, certificate, key)
        return Restored(certificates=tuple(found.certificates), geo_files=tuple(found.geo_files))
    finally:
        file.unlink(missing_ok=True)
        shutil.rmtree(unpacked, ignore_errors=True)
