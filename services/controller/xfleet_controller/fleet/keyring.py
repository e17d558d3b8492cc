"""The fleet's keys: made once, sealed in the database; the root in a file that can be taken offline."""

import secrets
from datetime import datetime
from pathlib import Path

import msgspec

from xfleet_controller.db import Database
from xfleet_controller.fleet import store
from xfleet_controller.fleet.models import FleetSecret
from xfleet_controller.vault import Vault
from xfleet_nats.fleet import FleetKeys, FleetRoot, create_fleet
from xfleet_runtime.clock import Clock
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private
from xfleet_runtime.keys.sealed import KeyFile

SECRET_NAME = "fleet_keys"  # noqa: S105  the name of a row
RECORD = f"fleet:{SECRET_NAME}"


async def open_vault(database: Database, key_file: Path) -> Vault:
    """The vault of this database; its key file is made only while nothing is sealed. Raises `Unusable`."""
    async with database.read() as session:
        sealed = await store.find_secret(session, SECRET_NAME)
    if sealed is None:
        return Vault(KeyFile.load_or_create(key_file))
    vault = Vault(KeyFile.load_existing(key_file))
    vault.open_own(RECORD, sealed)
    return vault


async def load_keys(database: Database, vault: Vault) -> FleetKeys | None:
    """The fleet's keys; None while there is no fleet."""
    async with database.read() as session:
        sealed = await store.find_secret(session, SECRET_NAME)
    return None if sealed is None else msgspec.json.decode(vault.open_own(RECORD, sealed), type=FleetKeys)


async def load_or_create_keys(
    database: Database, vault: Vault, root_file: Path, clock: Clock
) -> tuple[FleetKeys, bool]:
    """The fleet's keys, and whether they were made just now. The root is written before anything refers to it."""
    keys = await load_keys(database, vault)
    if keys is not None:
        return keys, False
    root, keys = create_fleet(f"f{secrets.token_hex(4)}", clock=clock)
    try:
        write_private(root_file, msgspec.json.encode(root))
    except OSError as error:
        raise Unusable(f"Cannot write {root_file}: {error.strerror}. Fix the rights of its place.") from error
    now: datetime = clock.now()
    async with database.write() as session:
        sealed = vault.seal(RECORD, msgspec.json.encode(keys))
        session.add(FleetSecret(name=SECRET_NAME, sealed=sealed, created_at=now, updated_at=now))
    return keys, True


def find_root(root_file: Path) -> FleetRoot | None:
    """The fleet root; None while its file is offline. Raises `Unusable` when it is broken."""
    try:
        return msgspec.json.decode(root_file.read_bytes(), type=FleetRoot)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise Unusable(f"Cannot read {root_file}: {error.strerror}. Fix its rights.") from error
    except msgspec.MsgspecError as error:
        raise Unusable(f"The fleet root {root_file} is broken: {error}. Restore it from a backup.") from error
