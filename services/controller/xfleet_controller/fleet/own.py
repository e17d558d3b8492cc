"""The credentials that belong to this installation itself, renewed while it runs: ours, bot's and command line's, and
the certificate of a broker on this machine.
"""

from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import msgspec

from xfleet_controller.bus import LINKS, Bus
from xfleet_controller.context import Context
from xfleet_controller.control.credentials import FILE_NAME as CLI_FILE
from xfleet_controller.control.credentials import CliCredentials, write_credentials
from xfleet_nats.fleet import FleetIssuer
from xfleet_nats.process import reload_running
from xfleet_nats.render import renew_certificate
from xfleet_runtime.broker import Credentials, Disconnected
from xfleet_runtime.errors import Unusable
from xfleet_runtime.files import write_private
from xfleet_runtime.ids import new_id
from xfleet_runtime.keys import x509
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
T = TypeVar("T")
RENEW_EVERY = timedelta(days=30)
BOT_FILE = "bot-credentials.json"


def link_credentials(issuer: FleetIssuer, urls: tuple[str, ...]) -> dict[str, Credentials]:
    """Fresh credentials for every link of a controller."""
    name = f"c{new_id()[:12]}"
    return {link: issuer.bus_credentials(role, f"{name}-{link}", urls) for link, role in LINKS.items()}


class OwnCredentials:
    """Renews monthly, and at once what the broker refuses; each on its own, so that one failure stops no other."""

    def __init__(self, context: Context, bus: Bus, issuer: FleetIssuer, urls: tuple[str, ...]) -> None:
        self._context = context
        self._bus = bus
        self._issuer = issuer
        self._urls = urls

    async def look(self) -> None:
        """Renews what is due."""
        steps: tuple[Callable[[], Awaitable[None]], ...] = (self._links, self._bot, self._command_line, self._broker)
        for step in steps:
            try:
                await step()
            except (OSError, Disconnected, Unusable, msgspec.MsgspecError) as error:
                _log.warning("own credentials were not renewed yet", what=step.__name__.strip("_"), reason=str(error))

    async def renew_links(self) -> None:
        """Moves every link to new credentials without a gap. Raises `Disconnected`, keeping the old."""
        fresh = link_credentials(self._issuer, self._urls)
        for name, link in zip(LINKS, self._bus.all, strict=True):
            await link.replace_credentials(fresh[name])
        _log.info("own credentials renewed", links=len(fresh))

    async def _links(self) -> None:
        if any(link.refused or self._is_due(link.credentials) for link in self._bus.all):
            await self.renew_links()

    async def _bot(self) -> None:
        path = self._keys / BOT_FILE
        held = _read(path, Credentials)
        if held is not None and self._is_due(held):
            write_private(path, msgspec.json.encode(self._issuer.bus_credentials("bot", "bot", held.urls)))

    async def _command_line(self) -> None:
        path = self._keys / CLI_FILE
        held = _read(path, CliCredentials)
        if held is not None and self._is_due(held.broker):
            await write_credentials(
                self._context.database, self._issuer, held.broker.urls, path, self._context.clock, admin_name=held.admin
            )

    async def _broker(self) -> None:
        """A broker elsewhere has its own start for this."""
        directory = self._context.settings.broker_dir
        try:
            chain = (directory / "server.crt").read_text()
        except FileNotFoundError:
            return
        ends_at = x509.expires_at(chain)
        if ends_at - self._context.clock.now() < x509.lifetime(chain) - RENEW_EVERY:
            renew_certificate(directory, self._issuer)
            told = reload_running(directory)
            _log.info("the broker's certificate was renewed", running=told)

    @property
    def _keys(self) -> Path:
        return self._context.settings.data_dir / "keys"

    def _is_due(self, credentials: Credentials) -> bool:
        age_s = self._context.clock.now_ms() / 1000 - credentials.issued_at
        return age_s > RENEW_EVERY.total_seconds()


def _read(path: Path, kind: type[T]) -> T | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except FileNotFoundError:
        return None
