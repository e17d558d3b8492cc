"""Joining: the broker's public addresses, whether they can be reached, and the line that makes a machine a server."""

import asyncio
import json
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from xfleet_contracts.errors import Refusal
from xfleet_contracts.installs import AgentUpdate
from xfleet_controller.audit.store import note
from xfleet_controller.auth.rights import Actor, authorize
from xfleet_controller.context import Context
from xfleet_controller.errors import BusUnavailable, NotFound
from xfleet_controller.fleet import service as fleet_service
from xfleet_controller.fleet import store as fleet_store
from xfleet_controller.fleet.manifest import BROKER_PUBLIC_URLS, default_address, ensure_manifest, with_public
from xfleet_controller.fleet.service import TOKEN_LIFETIME, Fleet
from xfleet_controller.install import library, side_door
from xfleet_controller.joining.addresses import checked_urls, is_local, is_private
from xfleet_controller.joining.line import line_of
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import store as servers
from xfleet_controller.servers.presence import Bucket
from xfleet_controller.servers.service import check_joinable
from xfleet_runtime.broker import BrokerLink, BrokerOutage
from xfleet_runtime.files import write_private
from xfleet_runtime.keys import signing
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
BROKER_URLS = "broker_urls"
DIAL_TIMEOUT_S = 6.0
DIAL_EVERY_S = 0.3
DIAL_LIFETIME = timedelta(minutes=1)
DIAL_BURST_COUNT, DIALS_PER_S = 30, 0.2
EVERYWHERE = "0.0.0.0"  # noqa: S104  only when an admin asked for it
Listens = Literal["everywhere", "loopback", "elsewhere"]


class BrokerNotPublic(Refusal):
    """No machine elsewhere could reach the broker, as far as anybody told us."""

    code = "broker_not_public"
    status = 409
    message = "Say first under which address other machines reach the broker."


class PanelNotPublic(Refusal):
    """The address of the panel in the line would mean the new server itself."""

    code = "panel_not_public"
    status = 409
    message = (
        "Another machine cannot fetch the script from this address of the panel. Open the panel under its public "
        "address, or start it with --public or --public-url."
    )


class TooManyDials(Refusal):
    """More addresses than anybody tries who looks for his own broker."""

    code = "rate_limited"
    status = 429
    message = "Too many tries of addresses. Wait a minute, then try again."


class RootOffline(Refusal):
    """The manifest with the new addresses cannot be signed."""

    code = "root_offline"
    status = 409
    message = "The fleet root is offline. Put its file back for a moment: it signs what agents believe."


class Dial(msgspec.Struct, frozen=True, kw_only=True):
    """What came of connecting to one address of the broker, as a member of the fleet, from this machine."""

    url: str
    ok: bool
    code: str = ""
    """Empty when it works; else `unreachable` or `private`."""
    reason: str = ""
    """The sentence for people."""
    took_ms: int = 0


class Reachability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether machines elsewhere have a way to the broker."""

    dials: tuple[Dial, ...]
    reachable: bool
    """Whether at least one public address answered as our broker."""


class BrokerAddresses(msgspec.Struct, frozen=True, kw_only=True):
    """Where the broker is."""

    public_urls: tuple[str, ...]
    """What machines elsewhere use; empty until somebody says it."""
    own_urls: tuple[str, ...]
    """What is used on this machine."""
    listens: Listens
    """`loopback`: nobody elsewhere can connect yet; `elsewhere`: the listener is not `xfleet up`'s."""
    suggested_url: str
    """A first guess for the form: this machine's own address; empty without one."""


class JoinLine(msgspec.Struct, frozen=True, kw_only=True):
    """The line to paste on the new machine, once."""

    server_id: int
    server: str
    """Slug."""
    line: str
    token: str
    """The enrollment token inside the line, for whoever installs the agent in another way."""
    script_url: str
    script_sha256: str
    expires_at: datetime
    replaces: bool


async def broker_addresses(context: Context, actor: Actor) -> BrokerAddresses:
    """What is known about the broker's addresses."""
    authorize(actor, "servers.read")
    async with context.database.read() as session:
        public = tuple(await fleet_store.find_setting(session, BROKER_PUBLIC_URLS) or ())
        own = tuple(await fleet_store.find_setting(session, BROKER_URLS) or ())
    reported = next((url for url in own if not is_local(url)), "")
    return BrokerAddresses(
        public_urls=public, own_urls=own, listens=_listens(context, own), suggested_url=reported or _guessed(own)
    )


async def set_broker_addresses(
    context: Context, actor: Actor, urls: Sequence[str], *, open_listener: bool = True
) -> BrokerAddresses:
    """Says where machines elsewhere find the broker; agents learn it at their next beat.

    With `open_listener` a broker of `xfleet up` that listens on loopback is started again on all addresses, and
    everybody reconnects within seconds; a panel on loopback opens its side door. Without addresses both are closed
    again, the broker at its next start. Raises `BrokerAddressWrong`, `BrokerAddressLocal` or `RootOffline`.
    """
    authorize(actor, "fleet.enroll")
    fleet = _fleet(context)
    now, before = context.clock.now(), await broker_addresses(context, actor)
    checked = checked_urls(urls, default_port=_port_of(before.own_urls))
    await _tell_agents(context, fleet, before.own_urls, checked)
    async with context.database.write() as session:
        await fleet_store.set_setting(session, BROKER_PUBLIC_URLS, list(checked), now)
        opened = bool(checked) and open_listener and side_door.is_needed(context)
        await fleet_store.set_setting(session, side_door.SETTING, opened, now)
        note(
            session, actor, "set_broker_addresses", "fleet", fleet.issuer.keys.fleet_id, now,
            before={"public_urls": before.public_urls}, after={"public_urls": checked},
        )  # fmt: skip
        note_event(session, "broker_addresses_changed", now, details={"urls": list(checked)})
    context.side_door.tell(opened=opened)
    if checked and open_listener and before.listens == "loopback":
        await _open_listener(context, fleet, before.own_urls)
    if not checked and context.settings.broker_listen_file is not None:
        context.settings.broker_listen_file.unlink(missing_ok=True)
    return await broker_addresses(context, actor)


async def reachability(context: Context, actor: Actor, urls: Sequence[str] = ()) -> Reachability:
    """Dials the broker under these addresses, else under its public ones, with the fleet's certificates.

    It dials from here: a router that does not lead its own public address back inside makes it fail though others get
    through, which the reason says. Addresses of the asker's own take the right to set them, and a few at a time. Raises
    `TooManyDials`.
    """
    authorize(actor, "fleet.enroll" if urls else "servers.read")
    for _ in urls:
        _take_dial(context, actor)
    fleet, known = _fleet(context), await broker_addresses(context, actor)
    wanted = checked_urls(urls, default_port=_port_of(known.own_urls)) if urls else known.public_urls
    dials = await asyncio.gather(*(_dial(fleet, url) for url in wanted))
    return Reachability(dials=tuple(dials), reachable=any(dial.ok for dial in dials))


async def make_join_line(
    context: Context,
    actor: Actor,
    server_id: int,
    *,
    panel_url: str = "",
    replaces: bool = False,
    public_address: str = "",
    lifetime: timedelta = TOKEN_LIFETIME,
    anywhere: bool = False,
) -> JoinLine:
    """The line that makes a machine this server; older, unused lines of it stay good until they expire.

    `panel_url` is the address the asker used; the setting `public_url` wins. `anywhere` also makes lines that only
    work on this machine. `public_address` is the new machine's, where it replaces another one and is known already.
    Raises `NotFound`, `ServerRetiring`, `Invalid`, `AddressTaken`, `BrokerNotPublic` or `PanelNotPublic`.
    """
    authorize(actor, "fleet.enroll")
    fleet, known = _fleet(context), await broker_addresses(context, actor)
    urls = known.public_urls or tuple(url for url in known.own_urls if anywhere or not is_local(url))
    if not urls:
        raise BrokerNotPublic
    install_url = _install_url(context, panel_url, urls, anywhere=anywhere)
    script = await library.script_of(context.library)
    async with context.database.write() as session:
        found = await servers.find_server(session, server_id)
        if found is None:
            raise NotFound("There is no such server.")
        server = found[0]
        await check_joinable(session, server, public_address.strip())
        token = await fleet_service.make_token(
            session, fleet, actor, server, lifetime=lifetime, broker_urls=urls, replaces=replaces,
            replaces_address=public_address.strip(),
        )  # fmt: skip
    return JoinLine(
        server_id=server.id,
        server=server.slug,
        line=line_of(install_url, script.sha256, token),
        token=token,
        script_url=f"{install_url}/{script.sha256}/{script.name}",
        script_sha256=script.sha256,
        expires_at=context.clock.now() + lifetime,
        replaces=replaces,
    )


async def own_release(
    context: Context, actor: Actor, *, panel_url: str = "", python: str = "", machine: str = ""
) -> AgentUpdate:
    """The order that upgrades agents to this controller's own release, fetched from `/install/`.

    With a Python version and a machine (`3.11.7`, `x86_64`, as `info` tells them) it names their wheels too; without
    it brings our own wheel alone. Raises `PanelNotPublic`.
    """
    authorize(actor, "servers.read")
    known = await broker_addresses(context, actor)
    urls = known.public_urls or known.own_urls
    install_url = _install_url(context, panel_url, urls, anywhere=not known.public_urls)
    return await library.update_for(context.library, install_url, python=python, machine=machine)


async def _tell_agents(context: Context, fleet: Fleet, own: tuple[str, ...], public: tuple[str, ...]) -> None:
    """Signs and spreads a manifest with these addresses."""
    keys, urls = fleet.issuer.keys, tuple(dict.fromkeys((*own, *public)))
    current = signing.open_manifest(keys.root_public, fleet.manifest)
    signed = await ensure_manifest(
        context.database, keys, context.settings.root_file, context.clock, broker_urls=urls,
        panel_urls=current.panel_urls,
    )  # fmt: skip
    if signing.open_manifest(keys.root_public, signed).broker_urls != urls:
        raise RootOffline
    fleet.manifest, fleet.broker_urls = signed, urls


async def _open_listener(context: Context, fleet: Fleet, own: tuple[str, ...]) -> None:
    """Renders the broker for all addresses and leaves word for `xfleet up`, which starts it again."""
    from xfleet_controller.init import InitOrder, render_own_broker  # noqa: PLC0415  init wires, we only ask for a part

    file = context.settings.broker_listen_file
    if file is None:
        return
    order = InitOrder(
        broker_host=EVERYWHERE, broker_port=_port_of(own, "tls"), broker_websocket_port=_port_of(own, "wss", 0)
    )
    await render_own_broker(context, fleet.issuer, order)
    write_private(file, json.dumps({"host": EVERYWHERE}).encode())
    _log.info("the broker is to listen on all addresses", port=order.broker_port)


async def _dial(fleet: Fleet, url: str) -> Dial:
    credentials, started_s = (
        fleet.issuer.bus_credentials("enroll", "reachability", (url,), expires_at=fleet.clock.now() + DIAL_LIFETIME),
        time.monotonic(),
    )
    try:
        async with BrokerLink(credentials, name="reachability", longest_wait_s=DIAL_EVERY_S) as link:
            await link.wait_connected(DIAL_TIMEOUT_S)
    except BrokerOutage as outage:
        reason = (
            f"{outage}. Is the port open in the firewall? (Some routers do not lead their own address back inside.)"
        )
        return Dial(url=url, ok=False, code="unreachable", reason=reason, took_ms=_since_ms(started_s))
    if is_private(url):
        reason = "It works, but this is an address of a private network: machines elsewhere cannot reach it."
        return Dial(url=url, ok=True, code="private", reason=reason, took_ms=_since_ms(started_s))
    return Dial(url=url, ok=True, took_ms=_since_ms(started_s))


def _take_dial(context: Context, actor: Actor) -> None:
    now_s = context.clock.monotonic_s()
    fresh = Bucket(filled_at_s=now_s, burst=DIAL_BURST_COUNT, per_s=DIALS_PER_S, tokens=DIAL_BURST_COUNT)
    if not context.dials.setdefault(actor.name, fresh).take(now_s):
        raise TooManyDials(retry_after_s=60)


def _listens(context: Context, own: tuple[str, ...]) -> Listens:
    file = context.settings.broker_listen_file
    if file is None:
        return "elsewhere"
    return "everywhere" if file.exists() or any(not is_local(url) for url in own) else "loopback"


def _guessed(own: tuple[str, ...]) -> str:
    address = default_address()
    shown = f"[{address}]" if ":" in address else address
    return f"tls://{shown}:{_port_of(own)}" if address else ""


def _install_url(context: Context, panel_url: str, urls: tuple[str, ...], *, anywhere: bool) -> str:
    """Where machines fetch: the panel as it is reached, else its side door. Raises `PanelNotPublic`."""
    base = (context.settings.public_url or panel_url or _own_panel(context, urls)).rstrip("/")
    if is_local(base) and not anywhere:
        if not context.side_door.ports:
            raise PanelNotPublic(panel_url=base)
        base = _side_door_url(context, urls)
    return f"{base}/install"


def _own_panel(context: Context, urls: tuple[str, ...]) -> str:
    """Where the panel listens, when nobody said how it is reached; on all addresses, under the broker's name."""
    settings = context.settings
    scheme, host = "https" if settings.tls else "http", settings.listen
    if host in {EVERYWHERE, "::"}:
        host = urlsplit(urls[0]).hostname or host
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{settings.port}{settings.prefix}"


def _port_of(urls: tuple[str, ...], scheme: str = "tls", otherwise: int = 4222) -> int:
    found = (urlsplit(url) for url in urls)
    return next((each.port for each in found if each.scheme == scheme and each.port), otherwise)


def _side_door_url(context: Context, urls: tuple[str, ...]) -> str:
    """The side door under the broker's public name: both are on this machine."""
    host = urlsplit(next((url for url in urls if url.startswith("tls:")), urls[0])).hostname or ""
    return f"http://{f'[{host}]' if ':' in host else host}:{context.side_door.ports[0][1]}"


def _since_ms(started_s: float) -> int:
    return round((time.monotonic() - started_s) * 1000)


def _fleet(context: Context) -> Fleet:
    if context.fleet is None:
        raise BusUnavailable
    return context.fleet


__all__ = [
    "BrokerAddresses", "Dial", "JoinLine", "Reachability", "broker_addresses", "make_join_line", "reachability",
    "set_broker_addresses", "with_public",
]  # fmt: skip
