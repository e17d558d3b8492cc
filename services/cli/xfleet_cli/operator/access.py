"""Access: the credentials of one command line, and how it asks the controller."""

import contextlib
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from xfleet_cli.up.settings import UpSettings, data_directory
from xfleet_contracts import subjects
from xfleet_contracts.codec import decode, encode
from xfleet_contracts.commands import Reply
from xfleet_contracts.errors import Refusal, RemoteRefusal
from xfleet_contracts.message import Secret
from xfleet_runtime.broker import BrokerLink, BrokerOutage, Credentials, NoResponders, traceparent
from xfleet_runtime.errors import Unusable

CONNECT_TIMEOUT_S = 5.0
ASK_TIMEOUT_S = 8.0
A = TypeVar("A", bound=msgspec.Struct)


class Access(msgspec.Struct, frozen=True, kw_only=True):
    """What the file `cli-credentials.json` holds; made by `xfleet-controller cli-credentials`."""

    broker: Credentials
    looking: Credentials
    """Of the role `ops-ro`, for other programs such as the NATS command line."""
    token: Secret
    """API token: the broker lets us ask, this says what we may."""
    admin: str = ""


class ControllerAway(Refusal):
    """Nobody answers on the bus for the controller."""

    code = "controller_away"
    status = 503
    message = "No controller answers. Servers go on without it; `xfleet ps` still shows what they say themselves."


class Desk:
    """Asks the controller over `fleet.ctl.cli.*`."""

    def __init__(self, link: BrokerLink, token: str) -> None:
        self.link = link
        self.token = token
        """What every question carries."""

    async def ask(self, method: str, question: Any, kind: type[A], *, timeout_s: float = ASK_TIMEOUT_S) -> A:
        """The answer. Raises `ControllerAway` or what the controller refused."""
        try:
            answer = await self.link.request(
                subjects.control_cli(method), encode(question), timeout_s=timeout_s, headers=traceparent()
            )
        except NoResponders as outage:
            raise ControllerAway from outage
        except BrokerOutage as outage:
            raise ControllerAway(f"The controller did not answer: {outage}.") from outage
        reply = decode(answer.payload, Reply)
        if reply.error is not None:
            raise RemoteRefusal(reply.error)
        return decode(bytes(reply.data), kind)


def credentials_file(data_dir: Path | None, given: Path | None) -> Path:
    """Which file is meant: the given one, `XFLEET_CREDENTIALS`, or the data directory's own."""
    if given is not None:
        return given.expanduser().absolute()
    if named := os.environ.get("XFLEET_CREDENTIALS"):
        return Path(named).expanduser().absolute()
    return data_directory(UpSettings(data_dir=data_dir)) / "keys" / "cli-credentials.json"


def read_access(path: Path) -> Access:
    """The credentials in the file. Raises `Unusable`."""
    try:
        access = msgspec.json.decode(path.read_bytes(), type=Access)
    except FileNotFoundError:
        raise Unusable(
            f"There are no credentials in {path}. Give --data-dir of the `xfleet up` on this machine, or --credentials"
            " with a file made by `xfleet-controller cli-credentials`."
        ) from None
    except OSError as error:
        raise Unusable(f"Cannot read {path}: {error.strerror}. Use the account that runs the controller.") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Unusable(f"{path} is damaged: {error}. Make it anew: xfleet-controller cli-credentials.") from error
    access.broker.check()
    return access


@contextlib.asynccontextmanager
async def open_desk(access: Access) -> AsyncIterator[Desk]:
    """A connected desk. Raises `Unusable` when the broker cannot be reached."""
    async with BrokerLink(access.broker, name="command line", longest_wait_s=1.0) as link:
        try:
            await link.wait_connected(CONNECT_TIMEOUT_S)
        except BrokerOutage as outage:
            where = ", ".join(access.broker.urls)
            raise Unusable(f"The broker at {where} cannot be reached: {outage}. Is it running?") from outage
        yield Desk(link, access.token)
