"""Every verb an agent may be asked, with the message it takes and the message it answers."""

from typing import Any, Generic, TypeVar

import msgspec

from xfleet_contracts import care, installs, logs
from xfleet_contracts.commands import (
    DEFAULT_TIMEOUT_S,
    TIMEOUT_S,
    WEIGHTS,
    AgentHealth,
    AgentInfo,
    Nothing,
    OnlineClients,
    SystemStats,
    TrafficRead,
    TrafficReading,
    Weight,
    XrayConfig,
    XrayVersion,
)
from xfleet_controller.errors import NotFound

Body = TypeVar("Body")
Answer = TypeVar("Answer")
LONGEST_READ_S = 25.0
"""A read is answered within one request of the panel, whatever the verb may take."""


class Verb(msgspec.Struct, Generic[Body, Answer], frozen=True, kw_only=True):
    """One verb."""

    name: str
    body: type[Body]
    answer: type[Answer]

    @property
    def weight(self) -> Weight:
        """What it costs."""
        return WEIGHTS[self.name]

    @property
    def is_change(self) -> bool:
        """Whether it leaves something behind on the server: then it is ordered by a task."""
        return self.weight != "read"

    @property
    def action(self) -> str:
        """The right it takes."""
        return "logs.read" if self.name == logs.LOGS_READ else f"servers.order.{self.weight}"

    @property
    def timeout_s(self) -> float:
        """How long its answer may take."""
        limit_s = TIMEOUT_S.get(self.name, DEFAULT_TIMEOUT_S)
        return limit_s if self.is_change else min(limit_s, LONGEST_READ_S)


INFO = Verb(name="info", body=Nothing, answer=AgentInfo)
HEALTH = Verb(name="health", body=Nothing, answer=AgentHealth)
XRAY_START = Verb(name="xray.start", body=Nothing, answer=XrayVersion)
XRAY_STOP = Verb(name="xray.stop", body=Nothing, answer=Nothing)
XRAY_RESTART = Verb(name="xray.restart", body=Nothing, answer=XrayVersion)
XRAY_VERSION = Verb(name="xray.version", body=Nothing, answer=XrayVersion)
XRAY_CONFIG = Verb(name="xray.config", body=Nothing, answer=XrayConfig)
XRAY_INSTALL = Verb(name=installs.XRAY_INSTALL, body=installs.XrayInstall, answer=installs.XrayInstalled)
TRAFFIC_READ = Verb(name="traffic.read", body=TrafficRead, answer=TrafficReading)
CLIENTS_ONLINE = Verb(name="clients.online", body=Nothing, answer=OnlineClients)
SYSTEM_STATS = Verb(name="system.stats", body=Nothing, answer=SystemStats)
LOGS_READ = Verb(name=logs.LOGS_READ, body=logs.LogsRead, answer=logs.LogText)
GEOFILES_UPDATE = Verb(name=installs.GEOFILES_UPDATE, body=installs.GeoFilesUpdate, answer=installs.GeoFilesUpdated)
CERTS_LIST = Verb(name=care.CERTS_LIST, body=Nothing, answer=care.CertificateList)
CERTS_GET = Verb(name=care.CERTS_GET, body=care.CertificateName, answer=care.CertificatePem)
CERTS_GENERATE = Verb(name=care.CERTS_GENERATE, body=care.CertificateGenerate, answer=care.CertificateInfo)
CHECKS_RUN = Verb(name=care.CHECKS_RUN, body=care.ChecksRun, answer=care.ChecksDone)
BACKUP = Verb(name=care.BACKUP, body=care.BackupOrder, answer=care.BlobSent)
RESTORE = Verb(name=care.RESTORE, body=care.RestoreOrder, answer=care.Restored)
AGENT_UPDATE = Verb(name=installs.AGENT_UPDATE, body=installs.AgentUpdate, answer=installs.AgentUpdating)
STATE_READ = Verb(name=care.STATE_READ, body=care.StateRead, answer=care.StateHeld)

ALL: dict[str, Verb[Any, Any]] = {
    verb.name: verb
    for verb in (
        INFO, HEALTH, XRAY_START, XRAY_STOP, XRAY_RESTART, XRAY_VERSION, XRAY_CONFIG, XRAY_INSTALL, TRAFFIC_READ,
        CLIENTS_ONLINE, SYSTEM_STATS, LOGS_READ, GEOFILES_UPDATE, CERTS_LIST, CERTS_GET, CERTS_GENERATE, CHECKS_RUN,
        BACKUP, RESTORE, AGENT_UPDATE, STATE_READ,
    )
}  # fmt: skip
TRANSFERS = frozenset({BACKUP.name, RESTORE.name})
"""Changes that move a file: carried out within the request that brings or takes it."""
ORDERS = tuple(name for name, verb in ALL.items() if verb.is_change and name not in TRANSFERS)
"""Changes that are ordered by a task and carried out when the server can."""


class UnknownVerb(NotFound):
    """No server knows this verb."""

    code = "unknown_verb"
    message = "There is no such order."


def get_verb(name: str) -> Verb[Any, Any]:
    """The verb of that name. Raises `UnknownVerb`."""
    verb = ALL.get(name)
    if verb is None:
        raise UnknownVerb(verb=name)
    return verb
