"""Another machine in the place of a server's: its keys, ports, clients and history stay, its addresses follow.

The old identity is revoked when the new one is enrolled. Where the new machine is, is known when its agent first
speaks: what pointed at the old machine then points at the new one, and what is written on the server says so.
"""

from datetime import datetime
from typing import Any

import msgspec
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.heartbeat import Heartbeat
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.fleet.models import EnrollmentToken
from xfleet_controller.inbounds.models import Host, Inbound
from xfleet_controller.outbox import note_event
from xfleet_controller.servers.addresses import is_address, is_private
from xfleet_controller.servers.models import Server
from xfleet_controller.texts import cleaned

WAITING, DONE = "waiting", "done"


class Replaced(msgspec.Struct, kw_only=True):
    """What became of the replacement of a server's machine."""

    state: str
    """waiting (for the new agent's first word) or done."""
    at: datetime
    """When the new machine was enrolled."""
    old_instance: str = ""
    old_address: str = ""
    """The old machine's, as its agent last told."""
    new_address: str = ""
    old_public_address: str = ""
    new_public_address: str = ""
    """What links name now; empty: what the agent tells."""
    hosts_count: int = 0
    """Hosts that pointed at the old machine and follow now."""
    hostname: str = ""
    """What the new machine calls itself."""

    @property
    def moved(self) -> bool:
        """Whether what links name has changed."""
        old = self.old_public_address or self.old_address
        return old != (self.new_public_address or self.new_address)


def read_replaced(kept: Any) -> Replaced | None:
    """What was written down; None when no machine was ever replaced."""
    return None if kept is None else msgspec.convert(kept, Replaced, strict=False)


async def note_enrolled(
    session: AsyncSession, server: Server, token: EnrollmentToken, hostname: str, now: datetime
) -> None:
    """Writes down that a new machine took the server's place; a public address that was given counts from now."""
    if not token.replaces:
        return
    replaced = Replaced(
        state=WAITING,
        at=now,
        old_instance=server.instance,
        old_address=server.reported_address,
        old_public_address=server.public_address,
        new_public_address=token.replaces_address or server.public_address,
        hostname=cleaned(hostname, 200),
    )
    if token.replaces_address and token.replaces_address != server.public_address:
        server.public_address = token.replaces_address
        server.version += 1
        olds = {replaced.old_public_address, replaced.old_address}
        replaced.hosts_count = await _move_hosts(session, server.id, olds, token.replaces_address)
    server.replaced = msgspec.to_builtins(replaced)
    server.last_error, server.updated_at = "", now
    note_event(session, "server_replaced", now, server=server.slug, subject=server.name)


async def follow(session: AsyncSession, server_id: int, beat: Heartbeat, now: datetime) -> bool:
    """Lets addresses follow a new machine that speaks for the first time; False while it has not.

    Nothing follows from an address of the internet to one of a private network: behind NAT only people know the way in.
    """
    server = await session.get(Server, server_id, with_for_update=True, populate_existing=True)
    replaced = None if server is None else read_replaced(server.replaced)
    if server is None or replaced is None or replaced.state != WAITING or beat.instance == replaced.old_instance:
        return False
    address = beat.host.default_address
    if not is_address(address) or len(address) > Server.reported_address.type.length:  # type: ignore[attr-defined]
        address = ""
    replaced.state, replaced.new_address = DONE, address
    hidden = is_private(address) and not is_private(replaced.old_address)
    if address and address != replaced.old_address and not hidden:
        replaced.hosts_count += await _move_hosts(session, server.id, {replaced.old_address}, address)
        if replaced.old_address and server.public_address == replaced.old_address:
            replaced.new_public_address = server.public_address = address
            server.version += 1
    server.replaced = msgspec.to_builtins(replaced)
    server.reported_address, server.updated_at = address, now
    before = {"address": replaced.old_address, "public_address": replaced.old_public_address}
    after = {"address": address, "public_address": server.public_address, "hosts_count": replaced.hosts_count}
    note(
        session, SYSTEM, "replace_machine", "server", str(server.id), now, name=server.name,
        before=before, after=after,
    )  # fmt: skip
    if replaced.moved:
        note_event(session, "server_address_changed", now, server=server.slug, subject=server.name, details=after)
    return True


async def _move_hosts(session: AsyncSession, server_id: int, olds: set[str], new: str) -> int:
    known = sorted(old.lower() for old in olds if old)
    if not known:
        return 0
    inbounds = select(Inbound.id).where(Inbound.server_id == server_id)
    moved = await session.execute(
        update(Host)
        .where(Host.inbound_id.in_(inbounds), func.lower(Host.address).in_(known))
        .values(address=new)
        .execution_options(synchronize_session=False)
    )
    return int(moved.rowcount)  # type: ignore[attr-defined]
