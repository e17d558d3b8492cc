"""Quota and expiry: whoever is over them gets no new stream, and nobody else notices."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from harness.broker import eventually
from harness.fleet import Fleet, Paced
from harness.xray import Sink, XrayClient, free_port, passes, transfer

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.real_xray, pytest.mark.real_broker]
CUT_WITHIN_S = 15
MB = 1_000_000


async def is_cut(app: XrayClient, sink: Sink) -> bool:
    return not await passes(app, sink, timeout_s=2)


async def test_a_client_over_its_quota_is_cut_and_its_neighbour_on_the_same_inbound_goes_on(
    fleet: Fleet, sink: Sink
) -> None:
    inbound = await fleet.add_ws_inbound(free_port(), "quota")
    limited = await fleet.add_client("limited", inbound, total_bytes=5 * MB)
    neighbour = await fleet.add_client("neighbour", inbound)
    async with (
        XrayClient.from_link((await fleet.subscription(limited))[0], send_through="127.0.0.2") as app,
        XrayClient.from_link((await fleet.subscription(neighbour))[0], send_through="127.0.0.3") as other,
    ):
        moving = await Paced.start(other, sink, up_bytes=MB, down_bytes=MB, seconds=20)
        await transfer(app, sink, 1 * MB, 2 * MB)
        assert await passes(app, sink)
        await transfer(app, sink, 1 * MB, 2 * MB)
        await eventually(lambda: is_cut(app, sink), within_s=CUT_WITHIN_S)
        assert moving.running
        assert await passes(other, sink)
        shown = await fleet.api.get(f"clients/{limited['id']}")
        assert shown["state"] == "depleted"
        assert shown["up_bytes"] + shown["down_bytes"] >= 5 * MB
        await moving.finish()


async def test_a_raised_quota_lets_the_client_back_in(fleet: Fleet, sink: Sink) -> None:
    inbound = await fleet.add_ws_inbound(free_port(), "raised")
    client = await fleet.add_client("raised", inbound, total_bytes=MB)
    link = (await fleet.subscription(client))[0]
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        await transfer(app, sink, MB, MB)
        await eventually(lambda: is_cut(app, sink), within_s=CUT_WITHIN_S)
        await fleet.api.patch(f"clients/{client['id']}", {"total_bytes": 100 * MB}, wait=20)
        await eventually(lambda: passes(app, sink), within_s=10)
        assert (await fleet.api.get(f"clients/{client['id']}"))["state"] == "active"


async def test_an_expired_client_is_cut_and_a_later_date_lets_it_back_in(fleet: Fleet, sink: Sink) -> None:
    inbound = await fleet.add_ws_inbound(free_port(), "expiry")
    expires_at = datetime.now(UTC) + timedelta(seconds=8)
    client = await fleet.add_client("expiring", inbound, expires_at=expires_at.isoformat())
    async with XrayClient.from_link((await fleet.subscription(client))[0], send_through="127.0.0.2") as app:
        assert await passes(app, sink)
        await asyncio.sleep((expires_at - datetime.now(UTC)).total_seconds())
        await eventually(lambda: is_cut(app, sink), within_s=CUT_WITHIN_S)
        shown = await fleet.api.get(f"clients/{client['id']}")
        assert shown["state"] == "expired"
        later = (datetime.now(UTC) + timedelta(days=1)).isoformat()
        await fleet.api.patch(f"clients/{client['id']}", {"expires_at": later}, wait=20)
        await eventually(lambda: passes(app, sink), within_s=10)


async def test_a_disabled_and_a_deleted_client_are_cut_at_once(fleet: Fleet, sink: Sink) -> None:
    inbound = await fleet.add_ws_inbound(free_port(), "gone")
    client = await fleet.add_client("gone", inbound)
    link = (await fleet.subscription(client))[0]
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        assert await passes(app, sink)
        await fleet.api.patch(f"clients/{client['id']}", {"enabled": False}, wait=20)
        assert await is_cut(app, sink)
        await fleet.api.patch(f"clients/{client['id']}", {"enabled": True}, wait=20)
        assert await passes(app, sink)
        await fleet.api.delete(f"clients/{client['id']}", wait=20)
        assert await is_cut(app, sink)
