"""The panel as the bot sees it: questions and orders over the bus, on behalf of one Telegram account."""

from typing import Any, Protocol, TypeVar

import msgspec

from xfleet_contracts import control, subjects
from xfleet_contracts.codec import decode, encode
from xfleet_contracts.commands import Reply
from xfleet_contracts.control import Actor, ActorRequest, BindRequest, FleetStatus
from xfleet_contracts.errors import RemoteRefusal
from xfleet_runtime.broker import BrokerLink, traceparent

ASK_TIMEOUT_S = 8.0
CONNECT_TIMEOUT_S = 4.0
"""How long a question waits for a link that is just coming up."""
A = TypeVar("A", bound=msgspec.Struct)


class Panel(Protocol):
    """What handlers may ask. Raises `RemoteRefusal` for a no and `BrokerOutage` when nobody could be asked."""

    async def bind(self, telegram_id: int, code: str, name: str) -> Actor:
        """Ties the account to the admin who made the code."""
        ...

    async def whoami(self, telegram_id: int) -> Actor:
        """For whom the account acts."""
        ...

    async def status(self, telegram_id: int) -> FleetStatus:
        """How the fleet is."""
        ...


class BusPanel:
    """The panel over `fleet.ctl.*`."""

    def __init__(self, link: BrokerLink) -> None:
        self._link = link

    async def bind(self, telegram_id: int, code: str, name: str) -> Actor:
        """Ties the account to the admin who made the code."""
        return await self._ask(control.BIND, BindRequest(telegram_id=telegram_id, code=code, name=name), Actor)

    async def whoami(self, telegram_id: int) -> Actor:
        """For whom the account acts."""
        return await self._ask(control.WHOAMI, ActorRequest(telegram_id=telegram_id), Actor)

    async def status(self, telegram_id: int) -> FleetStatus:
        """How the fleet is."""
        return await self._ask(control.STATUS, ActorRequest(telegram_id=telegram_id), FleetStatus)

    async def _ask(self, method: str, question: Any, kind: type[A]) -> A:
        await self._link.wait_connected(CONNECT_TIMEOUT_S)
        answer = await self._link.request(
            subjects.control(method), encode(question), timeout_s=ASK_TIMEOUT_S, headers=traceparent()
        )
        reply = decode(answer.payload, Reply)
        if reply.error is not None:
            raise RemoteRefusal(reply.error)
        return decode(bytes(reply.data), kind)
