"""`/api/v1/fleet/broker-addresses` and the line that joins a machine."""

from datetime import datetime
from typing import Any

import msgspec
from litestar import Controller, Request, get, post, put
from litestar.params import FromPath, FromQuery, JSONBody
from litestar.status_codes import HTTP_200_OK, HTTP_201_CREATED

from xfleet_controller.edge import TheActor, TheContext, public_base
from xfleet_controller.joining import service
from xfleet_controller.joining.service import BrokerAddresses, Reachability


class AddressesIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """Where machines elsewhere find the broker."""

    urls: list[str]
    """`tls://HOST:PORT`, `wss://HOST:PORT/path`, or just a host."""
    open_listener: bool = True
    """Lets a broker of `xfleet up` that listens on loopback listen on all addresses."""


class DialIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """What to dial; empty: the public addresses as they are set."""

    urls: list[str] = []


class JoinIn(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """For which machine the line is."""

    replaces: bool = False
    """The machine takes the place of the server's present one."""
    public_address: str = ""
    """The new machine's, where it replaces another; empty: what pointed at the old one follows by itself."""
    anywhere: bool = False
    """Make the line even if it only works on this machine."""


class JoinOut(msgspec.Struct, kw_only=True):
    """The line to paste on the new machine, shown once."""

    line: str
    enrollment_token: str
    script_url: str
    script_sha256: str
    expires_at: datetime


class ReleaseOut(msgspec.Struct, kw_only=True):
    """What `agent.update` takes."""

    version: str
    wheel: dict[str, str]
    wheelhouse: list[dict[str, str]]


class JoiningApi(Controller):
    """How machines join the fleet."""

    path = "/"
    tags = ["joining"]

    @get("/fleet/broker-addresses", summary="Show the broker's addresses")
    async def show(self, context: TheContext, actor: TheActor) -> BrokerAddresses:
        """Those for machines elsewhere, and our own."""
        return await service.broker_addresses(context, actor)

    @put("/fleet/broker-addresses", summary="Set the broker's public addresses")
    async def replace(self, context: TheContext, actor: TheActor, data: JSONBody[AddressesIn]) -> BrokerAddresses:
        """Agents learn them at their next beat."""
        return await service.set_broker_addresses(context, actor, data.urls, open_listener=data.open_listener)

    @post("/fleet/reachability", status_code=HTTP_200_OK, summary="Dial the broker under its public addresses")
    async def dial(self, context: TheContext, actor: TheActor, data: JSONBody[DialIn]) -> Reachability:
        """From this machine, with the fleet's certificates."""
        return await service.reachability(context, actor, data.urls)

    @get("/fleet/agent-release", summary="Show the agent's release of this panel")
    async def release(
        self,
        request: Request[Any, Any, Any],
        context: TheContext,
        actor: TheActor,
        python: FromQuery[str] = "",
        machine: FromQuery[str] = "",
    ) -> ReleaseOut:
        """As the body of an upgrade; with `python` (`3.11`) and `machine` (`x86_64`) it names their wheels too."""
        order = await service.own_release(
            context, actor, panel_url=public_base(request, context), python=python[:20], machine=machine[:20]
        )
        return ReleaseOut(
            version=order.version,
            wheel={"url": order.wheel.url, "sha256": order.wheel.sha256},
            wheelhouse=[{"url": each.url, "sha256": each.sha256} for each in order.wheelhouse],
        )

    @post("/servers/{server_id:int}/join-line", status_code=HTTP_201_CREATED, summary="Make a joining line")
    async def join(
        self,
        request: Request[Any, Any, Any],
        context: TheContext,
        actor: TheActor,
        server_id: FromPath[int],
        data: JSONBody[JoinIn],
    ) -> JoinOut:
        """Valid once, for 15 minutes."""
        made = await service.make_join_line(
            context, actor, server_id, panel_url=public_base(request, context), replaces=data.replaces,
            public_address=data.public_address, anywhere=data.anywhere,
        )  # fmt: skip
        return JoinOut(
            line=made.line,
            enrollment_token=made.token,
            script_url=made.script_url,
            script_sha256=made.script_sha256,
            expires_at=made.expires_at,
        )
