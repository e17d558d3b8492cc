"""Two admins edit the same thing: the later one is told, sees both values, and nothing is lost."""

import html
import re
from collections.abc import Callable, Iterator

import pytest

from harness.panel import PanelWorld
from harness.visitor import Visitor
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.inbounds.service import get_inbound

INBOUND = {"server_id": "1", "preset": "reality", "reality_target": "www.example.com:443", "enabled": "on"}


def fields_of(page: str) -> dict[str, str]:
    """What the form holds, as a browser would post it."""
    found = {}
    for tag in re.findall(r"<input [^>]+>", page):
        name, value = re.search(r'name="([^"]+)"', tag), re.search(r'value="([^"]*)"', tag)
        kind = re.search(r'type="([^"]+)"', tag)
        chosen = kind is None or kind[1] not in {"checkbox", "radio"} or " checked" in tag
        if name and chosen:
            found[name[1]] = html.unescape(value[1]) if value else ""
    for name, text in re.findall(r'<textarea [^>]*name="([^"]+)"[^>]*>(.*?)</textarea>', page, re.DOTALL):
        found[name] = html.unescape(text)
    return found


@pytest.fixture
def admins(new_visitor: Callable[[], Visitor]) -> Iterator[tuple[Visitor, Visitor]]:
    first, second = new_visitor(), new_visitor()
    with first.http, second.http:
        for each in (first, second):
            assert each.sign_in().status_code == 303
            each.get("/")
        yield first, second


def test_the_later_of_two_edits_of_an_inbound_sees_both_values_and_saves_knowingly(
    panel: PanelWorld, admins: tuple[Visitor, Visitor]
) -> None:
    first, second = admins
    assert first.post("/inbounds/new", {**INBOUND, "port": "24430", "remark": "shared"}).status_code == 303
    page = first.get("/inbounds").text
    inbound_id = int(page[: page.index("<bdi>shared</bdi>")].rpartition("/inbounds/")[2].partition("/")[0])
    url = f"/inbounds/{inbound_id}/edit"
    mine, yours = fields_of(first.get(url).text), fields_of(second.get(url).text)
    moved = mine | {"port": "24431", "ws_path": "/", "reality_target": "www.example.net:443"}
    assert first.post(url, moved | {"csrf_token": first.token}).status_code == 303
    wanted = yours | {"remark": "renamed", "reality_server_names": "a.example.com"}
    refused = second.post(url, wanted | {"csrf_token": second.token})
    text = html.unescape(refused.text)
    assert refused.status_code == 422
    assert "Somebody else changed this" in text
    assert "Saved by somebody else: 24431." in text
    assert "Saved by somebody else: www.example.net:443." in text
    assert "privateKey" not in re.sub(r"<textarea.*?</textarea>", "", text, flags=re.DOTALL)
    stored = panel.run(get_inbound(panel.context, SYSTEM, inbound_id))
    assert (stored.row.remark, stored.row.port) == ("shared", 24431)

    again = fields_of(refused.text)
    assert (again["remark"], again["port"], again["reality_server_names"]) == ("renamed", "24430", "a.example.com")
    done = second.post(
        url, again | {"port": "24431", "reality_target": "www.example.net:443", "csrf_token": second.token}
    )
    assert done.status_code == 303
    saved = panel.run(get_inbound(panel.context, SYSTEM, inbound_id))
    reality = saved.body.stream_settings["realitySettings"]
    assert (saved.row.remark, saved.row.port) == ("renamed", 24431)
    assert (reality["target"], reality["serverNames"]) == ("www.example.net:443", ["a.example.com"])
    assert reality["privateKey"] == stored.body.stream_settings["realitySettings"]["privateKey"]


def test_the_later_of_two_edits_of_a_client_sees_both_values(admins: tuple[Visitor, Visitor]) -> None:
    first, second = admins
    made = first.post("/clients/new", {"name": "twice", "quota_unit": "GB", "enabled": "on"})
    url = f"/clients/{made.headers['location'].rpartition('/')[2]}/edit"
    mine, yours = fields_of(first.get(url).text), fields_of(second.get(url).text)
    assert first.post(url, mine | {"comment": "paid", "csrf_token": first.token}).status_code == 303
    refused = second.post(url, yours | {"comment": "called", "quota_unit": "GB", "csrf_token": second.token})
    assert refused.status_code == 422
    assert "Saved by somebody else: paid." in html.unescape(refused.text)
    again = fields_of(refused.text)
    assert again["comment"] == "called"
    assert second.post(url, again | {"quota_unit": "GB", "csrf_token": second.token}).status_code == 303
    assert fields_of(first.get(url).text)["comment"] == "called"
