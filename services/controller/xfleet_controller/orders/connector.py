"""ServerConnector: one typed interface over everything one server can be asked or told, over the bus.

Every method raises `AgentOffline` (nobody heard it), `AgentTimeout` (outcome unknown; repeat with the same
`command_id`), or `AgentRefused` with the server's word. There is no other way to a server, not even to the local one.
"""

import asyncio
from collections.abc import Awaitable
from typing import BinaryIO, NamedTuple, TypeVar

from xfleet_contracts.care import (
    BackupOrder,
    BlobSent,
    CertificateGenerate,
    CertificateInfo,
    CertificateList,
    CertificateName,
    CertificatePem,
    ChecksDone,
    ChecksRun,
    Restored,
    StateHeld,
    StateRead,
)
from xfleet_contracts.commands import (
    AgentHealth,
    AgentInfo,
    Nothing,
    OnlineClients,
    SystemStats,
    TrafficRead,
    TrafficReading,
    XrayConfig,
    XrayVersion,
)
from xfleet_contracts.errors import RemoteRefusal
from xfleet_contracts.installs import (
    AgentUpdate,
    AgentUpdating,
    GeoFilesUpdate,
    GeoFilesUpdated,
    XrayInstall,
    XrayInstalled,
)
from xfleet_contracts.logs import LOG_LEASE, LogLease, LogsRead, LogText
from xfleet_controller.bus import Commander
from xfleet_controller.orders import verbs
from xfleet_controller.orders.answers import refusal_of
from xfleet_controller.orders.blobs import Transfers
from xfleet_controller.orders.verbs import Verb

Body = TypeVar("Body")
Answer = TypeVar("Answer")
NOTHING = Nothing()


class ServerConnector:
    """One server."""

    def __init__(self, sid: str, commander: Commander, transfers: Transfers) -> None:
        self.sid = sid
        self._commander = commander
        self._transfers = transfers

    async def ask(self, verb: Verb[Body, Answer], body: Body, *, command_id: str = "", trace_id: str = "") -> Answer:
        """The answer to any verb; all others below are this one with a name."""
        try:
            return await self._commander.request(
                self.sid,
                verb.name,
                body,
                verb.answer,
                timeout_s=verb.timeout_s,
                command_id=command_id,
                trace_id=trace_id,
            )
        except RemoteRefusal as error:
            raise refusal_of(error) from error

    async def info(self) -> AgentInfo:
        """What the agent and its machine are."""
        return await self.ask(verbs.INFO, NOTHING)

    async def health(self) -> AgentHealth:
        """One word per check."""
        return await self.ask(verbs.HEALTH, NOTHING)

    async def xray_start(self, *, command_id: str = "") -> XrayVersion:
        """Starts Xray; also one that an operator had stopped."""
        return await self.ask(verbs.XRAY_START, NOTHING, command_id=command_id)

    async def xray_stop(self, *, command_id: str = "") -> None:
        """Stops Xray after its last bytes were counted; it stays stopped."""
        await self.ask(verbs.XRAY_STOP, NOTHING, command_id=command_id)

    async def xray_restart(self, *, command_id: str = "") -> XrayVersion:
        """Restarts Xray; open connections end."""
        return await self.ask(verbs.XRAY_RESTART, NOTHING, command_id=command_id)

    async def xray_version(self) -> XrayVersion:
        """Which Xray runs."""
        return await self.ask(verbs.XRAY_VERSION, NOTHING)

    async def xray_config(self) -> XrayConfig:
        """The running configuration, without secrets."""
        return await self.ask(verbs.XRAY_CONFIG, NOTHING)

    async def xray_install(self, order: XrayInstall, *, command_id: str = "") -> XrayInstalled:
        """Installs an Xray from a mirror, or goes back to one that is there."""
        return await self.ask(verbs.XRAY_INSTALL, order, command_id=command_id)

    async def traffic_read(self, page: TrafficRead) -> TrafficReading:
        """Xray's own counters; billing goes by the ledger."""
        return await self.ask(verbs.TRAFFIC_READ, page)

    async def clients_online(self) -> OnlineClients:
        """Refs of the clients with an open stream."""
        return await self.ask(verbs.CLIENTS_ONLINE, NOTHING)

    async def system_stats(self) -> SystemStats:
        """Figures of machine, agent and Xray."""
        return await self.ask(verbs.SYSTEM_STATS, NOTHING)

    async def logs_read(self, order: LogsRead) -> LogText:
        """The newest lines of one log."""
        return await self.ask(verbs.LOGS_READ, order)

    async def log_lease(self, lease: LogLease) -> None:
        """Asks for new lines until then; nobody answers. Raises `BrokerOutage`."""
        await self._commander.send(self.sid, LOG_LEASE, lease)

    async def geofiles_update(self, order: GeoFilesUpdate, *, command_id: str = "") -> GeoFilesUpdated:
        """Fetches geo files."""
        return await self.ask(verbs.GEOFILES_UPDATE, order, command_id=command_id)

    async def certs_list(self) -> CertificateList:
        """Domain certificates on the server's disk."""
        return await self.ask(verbs.CERTS_LIST, NOTHING)

    async def certs_get(self, name: str) -> CertificatePem:
        """One of them, without its key."""
        return await self.ask(verbs.CERTS_GET, CertificateName(name=name))

    async def certs_generate(self, order: CertificateGenerate, *, command_id: str = "") -> CertificateInfo:
        """Makes a self-signed one there."""
        return await self.ask(verbs.CERTS_GENERATE, order, command_id=command_id)

    async def checks_run(self, order: ChecksRun) -> ChecksDone:
        """Tries things from that machine."""
        return await self.ask(verbs.CHECKS_RUN, order)

    async def state_read(self, offset: int = 0) -> StateHeld:
        """A page of the desired state the agent holds."""
        return await self.ask(verbs.STATE_READ, StateRead(offset=offset))

    async def agent_update(self, order: AgentUpdate, *, command_id: str = "") -> AgentUpdating:
        """Has the agent replace itself; the new one proves itself by its heartbeat."""
        return await self.ask(verbs.AGENT_UPDATE, order, command_id=command_id)

    async def backup(self, *, command_id: str = "") -> "Backup":
        """An archive of what only that machine has. Raises `BlobWrong`, `BlobTooLarge` or `TooManyTransfers` too."""
        async with self._transfers.taking(self.sid) as intake:
            order = BackupOrder(transfer=intake.transfer)
            sent = await _unless(intake.failed, self.ask(verbs.BACKUP, order, command_id=command_id))
            intake.check(sent)
            return Backup(intake.handed_over(), sent)

    async def restore(self, file: BinaryIO, *, command_id: str = "") -> Restored:
        """Has the server fetch this file and put back what is in it."""
        async with self._transfers.offering(self.sid, file) as order:
            return await self.ask(verbs.RESTORE, order, command_id=command_id)


class Backup(NamedTuple):
    """An archive; whoever gets it closes it."""

    file: BinaryIO
    sent: BlobSent


async def _unless(failed: "asyncio.Future[None]", answer: Awaitable[Answer]) -> Answer:
    """The answer; the failure instead, as soon as there is one."""
    asking = asyncio.ensure_future(answer)
    try:
        await asyncio.wait((asking, failed), return_when=asyncio.FIRST_COMPLETED)
        if failed.done():
            failed.result()
        return asking.result()
    finally:
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        if failed.done():
            failed.exception()
