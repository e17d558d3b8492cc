"""The pages around servers with a browser without JavaScript: the list, the selector, the dialogs, two admins."""

import re
from collections.abc import Callable, Iterator

import pytest

from harness.panel import PanelWorld, running_panel
from harness.visitor import Visitor
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.servers.service import ServerEdit, edit_server

NAMES = ("oslo", "bergen", "lima")


@pytest.fixture(scope="module")
def panel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelWorld]:
    with running_panel(tmp_path_factory.mktemp("servers"), servers=NAMES) as world:
        yield world


def add_inbound(admin: Visitor, server_id: int, port: int, remark: str) -> None:
    fields = {
        "server_id": str(server_id), "preset": "ws", "port": str(port), "remark": remark, "ws_path": "/",
        "enabled": "on",
    }  # fmt: skip
    assert admin.post("/inbounds/new", fields).status_code == 303


def test_one_server_is_chosen_on_every_page_and_stays_chosen(admin: Visitor) -> None:
    add_inbound(admin, 1, 20001, "door-oslo")
    add_inbound(admin, 2, 20002, "door-bergen")
    assert 'value="all"' in admin.get("/").text
    page = admin.get("/inbounds?server=2").text
    assert "door-bergen" in page
    assert "door-oslo" not in page
    assert "door-oslo" not in admin.get("/inbounds").text
    assert "Add inbound" in admin.get("/tasks").text
    dashboard = admin.get("/").text
    assert "server-card-2" in dashboard
    assert "server-card-1" not in dashboard
    assert re.search(r'<option value="2" selected>bergen', dashboard)
    assert "server=2" in re.search(r'hx-sse:connect="([^"]+)"', dashboard).group(1)
    assert 'name="server_id"' in admin.get("/inbounds/new").text
    assert "door-oslo" in admin.get("/inbounds?server=all").text
    assert "door-oslo" in admin.get("/inbounds").text
    for nonsense in ("99", "-1", "x", "9" * 40):
        assert "door-oslo" in admin.get(f"/inbounds?server={nonsense}").text


def test_servers_are_listed_found_and_shown_as_a_table(admin: Visitor, panel: PanelWorld) -> None:
    panel.run(edit_server(panel.context, SYSTEM, 3, ServerEdit(tags=["far"], region="Peru")))
    assert admin.get("/servers").text.count('class="card server-card ') == 3
    table = admin.get("/servers?view=table").text
    assert table.count('id="server-row-') == 3
    for query in ("search=LIM", "tag=far", "region=Peru"):
        found = admin.get(f"/servers?{query}").text
        assert "server-card-3" in found
        assert "server-card-1" not in found
    assert "No server matches" in admin.get("/servers?status=retiring").text


def test_a_servers_page_tells_everything_that_is_known(admin: Visitor, panel: PanelWorld) -> None:
    panel.beat("oslo")
    page = admin.get("/servers/1").text
    for word in ("Wanted revision", "Clock offset", "Credentials end", "Host name", "Replace machine", "Delete"):
        assert word in page, word


def test_the_second_of_two_admins_sees_both_values_and_may_then_save(
    admin: Visitor, new_visitor: Callable[[], Visitor]
) -> None:
    other = new_visitor()
    assert other.sign_in().status_code == 303
    form = other.get("/servers/2/edit").text
    version = re.search(r'name="version" value="(\d+)"', form).group(1)
    fields = {"name": "bergen", "public_address": "b.example.com", "region": "", "tags": "", "mode": "active"}
    fields |= {"enabled": "on", "notes": "", "version": version}
    assert admin.get("/servers/2/edit").status_code == 200
    assert admin.post("/servers/2/edit", fields | {"region": "Norway"}).status_code == 303
    late = other.post("/servers/2/edit", fields | {"notes": "mine"})
    assert late.status_code == 409
    assert "Saved meanwhile:" in late.text
    assert "Norway" in late.text
    assert ">mine</textarea>" in late.text
    newer = re.search(r'name="version" value="(\d+)"', late.text).group(1)
    assert newer != version
    saved = other.post("/servers/2/edit", fields | {"notes": "mine", "region": "Norway", "version": newer})
    assert saved.status_code == 303
    page = admin.get("/servers/2/edit").text
    assert "mine" in page
    assert "Norway" in page
    other.http.close()


def test_a_server_is_added_step_by_step(admin: Visitor) -> None:
    assert "such as Frankfurt 1" in admin.get("/servers/new").text
    refused = admin.post("/servers/new", {"name": "OSLO", "public_address": ""})
    assert refused.status_code == 422
    assert "Another server has this name." in refused.text
    made = admin.htmx_post("/servers/new", {"name": "Quito 1", "region": "Ecuador"})
    assert "The broker cannot be reached now." in made.text
    assert "servers-changed" in made.headers["hx-trigger"]
    server_id = re.search(r"/servers/(\d+)/join", made.text).group(1)
    assert "No agent has joined as this server yet." in admin.get(f"/servers/{server_id}").text
    assert admin.get(f"/servers/{server_id}/join").status_code == 200
    assert "it is gone at once" in admin.get(f"/servers/{server_id}/delete").text
    assert admin.post(f"/servers/{server_id}/delete", {}).status_code == 303
    assert admin.get(f"/servers/{server_id}").status_code == 404


def test_mode_and_enabling_are_one_click_each(admin: Visitor) -> None:
    admin.get("/servers/3")
    assert admin.post("/servers/3/mode", {"mode": "drain"}).status_code == 303
    assert "draining" in admin.get("/servers/3").text
    assert admin.post("/servers/3/mode", {"mode": "nap"}).status_code == 422
    assert admin.post("/servers/3/disable", {}).status_code == 303
    assert "disabled" in admin.get("/servers/3").text
    assert admin.post("/servers/3/enable", {}).status_code == 303


def test_a_server_with_inbounds_is_deleted_only_with_a_word_about_them(admin: Visitor) -> None:
    add_inbound(admin, 3, 20003, "door-lima")
    ask = admin.get("/servers/3/delete").text
    assert "door-lima" in ask
    refused = admin.post("/servers/3/delete", {})
    assert refused.status_code == 422
    assert "still has inbounds" in refused.text
    assert admin.post("/servers/3/delete", {"with_inbounds": "on"}).status_code == 303
    assert "door-lima" not in admin.get("/inbounds?server=all").text
