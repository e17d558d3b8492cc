"""The panel's doors over HTTP, as a browser without JavaScript and as htmx use them."""

import html

import msgspec
import pytest
from sqlalchemy import select

from harness.panel import PanelWorld
from harness.visitor import Visitor
from xfleet_controller import sse
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.clients.models import Client
from xfleet_controller.gallery.pages import SPECIMENS
from xfleet_controller.inbounds.service import list_inbounds

INBOUND = {"server_id": "1", "preset": "reality", "reality_target": "www.example.com:443", "enabled": "on"}


def add_inbound(admin: Visitor, port: int, remark: str) -> int:
    answer = admin.post("/inbounds/new", {**INBOUND, "port": str(port), "remark": remark})
    assert answer.status_code == 303, answer.text
    page = admin.get("/inbounds").text
    marker = page.index(f"<bdi>{remark}</bdi>")
    return int(page[:marker].rpartition("/inbounds/")[2].partition("/")[0])


def add_client(admin: Visitor, name: str, **fields: str | list[str]) -> int:
    answer = admin.post("/clients/new", {"name": name, "quota_unit": "GB", "enabled": "on", **fields})
    assert answer.status_code == 303, answer.text
    return int(answer.headers["location"].rpartition("/")[2])


def test_every_page_sends_a_stranger_to_the_sign_in_form_and_back(stranger: Visitor) -> None:
    answer = stranger.get("/clients?search=bob")
    assert answer.status_code == 303
    location = answer.headers["location"]
    assert location == "/x7k2/login?next=%2Fclients%3Fsearch%3Dbob"
    form = stranger.http.get(f"http://{answer.url.netloc.decode()}{location}")
    assert 'name="next" value="/clients?search=bob"' in form.text


def test_signing_in_goes_on_to_the_wanted_page_but_never_elsewhere(stranger: Visitor) -> None:
    fields = {"username": "admin", "password": "correct horse battery"}
    assert stranger.post("/login", {**fields, "next": "/tasks"}).headers["location"] == "/x7k2/tasks"
    for foreign in ("//evil.example", "https://evil.example", "/\\evil.example", "/a\nb"):
        assert stranger.post("/login", {**fields, "next": foreign}).headers["location"] == "/x7k2/"


def test_session_cookie_is_out_of_reach_of_scripts_and_other_sites(stranger: Visitor) -> None:
    cookie = stranger.sign_in().headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/x7k2" in cookie


def test_wrong_password_says_only_that_something_is_wrong(stranger: Visitor) -> None:
    answer = stranger.sign_in("wrong password")
    assert answer.status_code == 401
    assert "Name or password are wrong." in answer.text
    assert "wrong password" not in answer.text


def test_sign_in_form_of_another_site_is_refused(stranger: Visitor) -> None:
    fields = {"username": "admin", "password": "correct horse battery"}
    answer = stranger.post("/login", fields, **{"sec-fetch-site": "cross-site"})
    assert answer.status_code == 403
    assert "set-cookie" not in answer.headers


def test_signing_out_ends_the_session(admin: Visitor) -> None:
    assert admin.post("/logout", {}).status_code == 303
    assert admin.get("/clients").status_code == 303


def test_change_without_the_sessions_token_is_refused(admin: Visitor) -> None:
    admin.token = "of another session"
    answer = admin.post("/clients/new", {"name": "mallory"})
    assert answer.status_code == 403
    assert "mallory" not in admin.get("/clients").text


def test_every_page_answers_under_the_strict_policy(admin: Visitor) -> None:
    for path in ("/", "/inbounds", "/inbounds/new", "/clients", "/clients/new", "/servers", "/servers/1", "/tasks"):
        answer = admin.get(path)
        assert answer.status_code == 200, (path, answer.text)
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert answer.headers["cache-control"] == "no-store"
    for path in ("/settings", "/servers/1/edit", "/gallery", "/login?next=/tasks"):
        assert admin.get(path).status_code in {200, 303}, path


def test_gallery_shows_every_specimen_to_the_owner(admin: Visitor) -> None:
    for name in SPECIMENS:
        assert admin.get(f"/gallery/{name}").status_code == 200, name


def test_static_files_are_kept_for_ever_and_compressed(admin: Visitor) -> None:
    page = admin.get("/").text
    start = page.index('href="/x7k2/static/') + len('href="')
    url = page[start : page.index('"', start)]
    answer = admin.http.get(f"{admin.base_url.removesuffix('/x7k2')}{url}", headers={"accept-encoding": "gzip"})
    assert "immutable" in answer.headers["cache-control"]
    css = admin.http.get(f"{admin.base_url}/static/{url.split('/')[3]}/vendor/tabler@1.6.1/tabler.min.css")
    assert css.headers["content-encoding"] == "gzip"
    assert css.headers["content-type"].startswith("text/css")
    assert int(css.headers["content-length"]) < 90_000


def test_pages_are_compressed_for_those_who_take_it(admin: Visitor) -> None:
    packed = admin.get("/", **{"accept-encoding": "gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) < 15_000
    plain = admin.get("/", **{"accept-encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert "</html>" in plain.text


def test_file_outside_the_static_directory_is_not_there(admin: Visitor) -> None:
    for name in ("../filters.py", "..%2Ffilters.py", "%2e%2e/filters.py", "css/nothing.css"):
        assert admin.get(f"/static/0/{name}").status_code in {404, 400}


def test_inbound_is_added_with_keys_and_listed(admin: Visitor, panel: PanelWorld) -> None:
    inbound_id = add_inbound(admin, 20443, "door-one")
    views, _ = panel.run(list_inbounds(panel.context, SYSTEM))
    view = next(view for view in views if view.row.id == inbound_id)
    reality = view.body.stream_settings["realitySettings"]
    assert reality["serverNames"] == ["www.example.com"]
    assert reality["privateKey"]
    assert view.body.sniffing["enabled"] is True


def test_taken_port_is_refused_at_its_field_and_nothing_is_saved(admin: Visitor) -> None:
    add_inbound(admin, 20444, "door-two")
    answer = admin.post("/inbounds/new", {**INBOUND, "port": "20444", "remark": "door-three"})
    assert answer.status_code == 422
    assert "is already used by the inbound door-two" in answer.text
    assert 'value="door-three"' in answer.text
    assert "door-three" not in admin.get("/inbounds").text


def test_broken_json_is_refused_where_it_was_typed(admin: Visitor) -> None:
    answer = admin.post("/inbounds/new", {**INBOUND, "port": "20445", "sniffing": "{broken"})
    assert answer.status_code == 422
    assert 'id="error-sniffing"' in answer.text
    assert "{broken" in answer.text
    assert '<details class="advanced" open>' in answer.text


def test_advanced_json_wins_over_the_simple_fields(admin: Visitor, panel: PanelWorld) -> None:
    fields = {**INBOUND, "port": "20446", "remark": "door-four"}
    fields["stream_settings"] = '{"realitySettings": {"shortIds": ["abcd1234"]}}'
    assert admin.post("/inbounds/new", fields).status_code == 303
    views, _ = panel.run(list_inbounds(panel.context, SYSTEM))
    reality = next(view for view in views if view.row.port == 20446).body.stream_settings["realitySettings"]
    assert reality["shortIds"] == ["abcd1234"]
    assert reality["target"] == "www.example.com:443"


def test_editing_keeps_the_keys_and_changes_the_target(admin: Visitor, panel: PanelWorld) -> None:
    inbound_id = add_inbound(admin, 20447, "door-five")

    def stream() -> dict[str, object]:
        views, _ = panel.run(list_inbounds(panel.context, SYSTEM))
        return next(view for view in views if view.row.id == inbound_id).body.stream_settings["realitySettings"]

    before = stream()
    page = admin.get(f"/inbounds/{inbound_id}/edit").text
    shown = {name: text_of(page, name) for name in ("settings", "stream_settings", "sniffing")}
    changed = {**INBOUND, **shown, "port": "20447", "remark": "door-5", "reality_target": "www.example.org:443"}
    answer = admin.post(f"/inbounds/{inbound_id}/edit", changed)
    assert answer.status_code == 303, answer.text
    assert stream()["privateKey"] == before["privateKey"]
    assert stream()["target"] == "www.example.org:443"


def text_of(page: str, name: str) -> str:
    area = page[page.index(f'id="field-{name}"') :]
    return html.unescape(area[area.index(">") + 1 : area.index("</textarea>")])


def test_second_admin_who_edits_the_same_is_told(admin: Visitor) -> None:
    inbound_id = add_inbound(admin, 20448, "door-six")
    fields = {**INBOUND, "port": "20448", "remark": "door-6", "version": "1"}
    assert admin.post(f"/inbounds/{inbound_id}/edit", fields).status_code == 303
    answer = admin.post(f"/inbounds/{inbound_id}/edit", fields)
    assert answer.status_code == 422
    assert "Somebody else changed this" in answer.text


def test_client_gets_links_a_subscription_and_qr_codes(admin: Visitor) -> None:
    inbound_id = add_inbound(admin, 20449, "door-seven")
    client_id = add_client(admin, "alice", inbound_ids=[str(inbound_id)], quota="2.5", expires_at="2030-01-31")
    page = admin.get(f"/clients/{client_id}").text
    assert "vless://" in page
    assert "@vpn.example.com:20449" in page
    assert f"{admin.base_url}/sub/" in page
    assert page.count("<svg") > 2
    assert "of 2.5 GB" in page
    assert "2030-02-01 00:00 UTC" in page
    assert "only this machine or network reaches" in page


def test_form_of_a_client_round_trips_without_changing_it(admin: Visitor, panel: PanelWorld) -> None:
    client_id = add_client(admin, "exact", quota="0.1", expires_at="2031-05-05")

    async def odd() -> None:
        async with panel.context.database.write() as session:
            row = await session.get_one(Client, client_id)
            row.total_bytes = 5_000_001

    panel.run(odd())
    page = admin.get(f"/clients/{client_id}/edit").text
    assert 'value="5000001"' in page
    fields = {"name": "exact", "quota": "5000001", "quota_unit": "B", "expires_at": "2031-05-05", "enabled": "on"}
    assert admin.post(f"/clients/{client_id}/edit", fields).status_code == 303

    async def stored() -> tuple[int | None, str]:
        async with panel.context.database.read() as session:
            row = await session.scalar(select(Client).where(Client.id == client_id))
            assert row is not None
            return row.total_bytes, str(row.expires_at)

    assert panel.run(stored()) == (5_000_001, "2031-05-06 00:00:00+00:00")


def test_wrong_client_fields_each_say_what_is_wrong(admin: Visitor) -> None:
    add_client(admin, "bob")
    taken = admin.post("/clients/new", {"name": "BOB", "enabled": "on"})
    assert taken.status_code == 422
    assert "Another client has this name." in taken.text
    wrong = admin.post("/clients/new", {"name": "x", "quota": "ten", "expires_at": "31.12."})
    assert 'id="error-quota"' in wrong.text
    assert 'id="error-expires_at"' in wrong.text
    assert 'value="ten"' in wrong.text


def test_search_and_state_narrow_the_list(admin: Visitor) -> None:
    add_client(admin, "needle-1")
    disabled = add_client(admin, "needle-2")
    assert admin.post(f"/clients/{disabled}/disable", {}).status_code == 303
    found = admin.get("/clients?search=NEEDLE").text
    assert "needle-1" in found
    assert "needle-2" in found
    only = admin.get("/clients?search=needle&state=disabled").text
    assert "needle-1" not in only
    assert "needle-2" in only
    assert "No client matches" in admin.get("/clients?search=nobody-here").text


def test_deleting_asks_first_and_then_is_gone(admin: Visitor) -> None:
    client_id = add_client(admin, "leaving")
    assert "leaving" in admin.get(f"/clients/{client_id}/delete").text
    assert admin.post(f"/clients/{client_id}/delete", {}).status_code == 303
    assert admin.get(f"/clients/{client_id}").status_code == 404


def test_htmx_gets_only_the_dialogs_content(admin: Visitor) -> None:
    answer = admin.get("/clients/new", **{"hx-request": "true", "hx-target": "div#dialog-content"})
    assert answer.text.lstrip().startswith("<header")
    assert "<html" not in answer.text


def test_htmx_hears_what_changed(admin: Visitor) -> None:
    answer = admin.htmx_post("/clients/new", {"name": "swapped", "enabled": "on"})
    assert answer.status_code == 200
    events = msgspec.json.decode(answer.headers["hx-trigger"])
    assert events == {"toast": {"message": "Client swapped added"}, "clients-changed": {}}
    assert "Subscription URL" in answer.text


def test_htmx_gets_a_refusal_as_a_toast(admin: Visitor) -> None:
    answer = admin.htmx_post("/clients/999999/disable", {})
    assert answer.status_code == 404
    assert answer.headers["hx-retarget"] == "#toasts"
    assert "toast-danger" in answer.text


def test_htmx_of_an_ended_session_is_sent_to_sign_in(stranger: Visitor) -> None:
    answer = stranger.get("/clients", **{"hx-request": "true"})
    assert answer.status_code == 401
    assert answer.headers["hx-redirect"] == "/x7k2/login"


def test_unknown_page_is_an_error_page_not_json(admin: Visitor) -> None:
    answer = admin.get("/nowhere")
    assert answer.status_code == 404
    assert "Nothing here" in answer.text


def test_tasks_tell_what_was_ordered(admin: Visitor) -> None:
    add_inbound(admin, 20450, "door-eight")
    page = admin.get("/tasks?status=pending").text
    assert "Add inbound" in page
    task_id = page.partition('id="task-row-')[2].partition('"')[0]
    assert "admin" in admin.get(f"/tasks/{task_id}").text


def test_server_edit_is_saved_and_wrong_address_refused(admin: Visitor) -> None:
    fields = {"name": "local", "public_address": "vpn2.example.com", "tags": "eu, fast", "notes": "rack 3"}
    assert admin.post("/servers/1/edit", fields).status_code == 303
    page = admin.get("/servers/1").text
    assert "vpn2.example.com" in page
    assert "fast" in page
    answer = admin.post("/servers/1/edit", {**fields, "public_address": "http://x/"})
    assert answer.status_code == 422
    assert 'id="error-public_address"' in answer.text
    assert admin.post("/servers/1/edit", {**fields, "public_address": "vpn.example.com"}).status_code == 303


def test_bot_code_is_shown_once(admin: Visitor) -> None:
    page = admin.post("/settings/bot-code", {}).text
    assert "/start " in page
    assert "/start " not in admin.get("/settings").text


def test_wrong_current_password_changes_nothing(admin: Visitor) -> None:
    fields = {"current_password": "nope", "new_password": "another long one", "repeat_password": "another long one"}
    answer = admin.post("/settings/password", fields)
    assert answer.status_code == 422
    assert 'id="error-current_password"' in answer.text
    differing = {**fields, "repeat_password": "another long two"}
    assert "The two new passwords differ." in admin.post("/settings/password", differing).text
    assert "another long" not in answer.text


def test_live_stream_sends_what_the_page_shows_and_then_only_changes(admin: Visitor, panel: PanelWorld) -> None:
    add_client(admin, "streaming")
    page = admin.get("/clients?search=streaming").text
    url = page.partition('hx-sse:connect="')[2].partition('"')[0].replace("&amp;", "&")
    origin = panel.base_url.removesuffix("/x7k2")
    with admin.http.stream("GET", f"{origin}{url}") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        chunks = stream.iter_text()
        first = next(chunks)
        assert "client-traffic-" in first
        assert "client-state-" in first
        panel.count("streaming", 3_000_000, 7_000_000)
        second = next(chunks)
        assert "9.54 MB" in second
        assert "client-state-" not in second


def test_live_stream_is_closed_to_strangers(stranger: Visitor) -> None:
    assert stranger.get("/live?page=dashboard").status_code == 303


def test_live_stream_ends_soon_after_its_session(
    admin: Visitor, panel: PanelWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sse, "CHECK_S", 0.0)
    with admin.http.stream("GET", f"{panel.base_url}/live?page=dashboard") as stream:
        chunks = stream.iter_text()
        next(chunks)
        assert admin.post("/logout", {}).status_code == 303
        for _ in chunks:
            pass
