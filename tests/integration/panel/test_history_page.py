"""The history page: versions in words, compare, go back, and strays."""

import html
import re

import pytest

from harness.panel import PanelWorld
from harness.visitor import Visitor
from xfleet_contracts.codec import canonical
from xfleet_contracts.desired_state import ClientBody, InboundBody
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.inbounds.service import list_inbounds
from xfleet_controller.servers import state_web
from xfleet_controller.servers.models import StrayEntity
from xfleet_controller.servers.strays import stray_record
from xfleet_xraykit.generate import complete_client, complete_inbound

INBOUND = {"server_id": "1", "preset": "reality", "reality_target": "www.example.com:443", "enabled": "on"}


def test_the_way_back_is_shown_in_words_and_taken_from_the_page(panel: PanelWorld, admin: Visitor) -> None:
    assert admin.post("/inbounds/new", {**INBOUND, "port": "25430", "remark": "first"}).status_code == 303
    page = html.unescape(admin.get("/servers/1/history").text)
    assert "vless, raw, reality, port 25430" in page
    assert admin.post("/inbounds/new", {**INBOUND, "port": "25431", "remark": "second"}).status_code == 303
    page = html.unescape(admin.get("/servers/1/history").text)
    version = re.findall(r"/servers/1/history/(\d+)/revert", page)[0]
    assert "second (port 25431)" in html.unescape(admin.get(f"/servers/1/history/{version}").text)
    dialog = html.unescape(admin.get(f"/servers/1/history/{version}/revert").text)
    assert "Also remove what was added since" in dialog
    assert "second (port 25431)" in dialog
    seen = re.search(r'name="seen" value="(\d+)"', dialog)
    assert seen is not None
    late = admin.post(f"/servers/1/history/{version}/revert", {"seen": "1", "remove_added": "on"})
    assert late.status_code == 422
    assert "Somebody else changed this" in late.text
    done = admin.post(f"/servers/1/history/{version}/revert", {"seen": seen[1], "remove_added": "on"})
    assert done.status_code == 303
    found, _ = panel.run(list_inbounds(panel.context, SYSTEM))
    assert [each.row.remark for each in found] == ["first"]
    assert admin.get("/servers/1/history/4711").status_code == 404


def test_strays_are_shown_until_somebody_decides(
    panel: PanelWorld, admin: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    ws = {"network": "ws", "security": "none", "wsSettings": {"path": "/ws"}}
    inbound = complete_inbound(InboundBody(ref=91, port=25999, protocol="vless", settings={}, stream_settings=ws))
    client = complete_client(ClientBody(client=92, inbound=91), inbound)

    async def add() -> None:
        async with panel.context.database.write() as session:
            for kind, name, body in (("inbound", "91", inbound), ("client", "92.91", client)):
                sealed = panel.context.vault.seal(stray_record(1, (kind, name)), canonical(body))
                now = panel.context.clock.now()
                session.add(StrayEntity(server_id=1, kind=kind, entity_id=name, body_sealed=sealed, found_at=now))

    panel.run(add())
    page = html.unescape(admin.get("/servers/1/history").text)
    assert "Only this server knows" in page
    assert "recovered vless 25999" in page
    assert client.uuid not in page
    monkeypatch.setattr(state_web, "STRAYS_SHOWN_COUNT", 1)
    page = html.unescape(admin.get("/servers/1/history").text)
    assert "and 1 more" in page
    assert "92.91" not in page
    answer = admin.post("/servers/1/strays", {"ids": ["91", "92.91"], "decision": "adopt"})
    assert answer.status_code == 303
    assert "recovered-92" in admin.get("/clients").text
    assert "Only this server knows" not in admin.get("/servers/1/history").text
