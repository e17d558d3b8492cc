"""The edge of the web: base path, Host and Origin, proxies, metrics."""

from pathlib import Path
from typing import Any

import httpx
import pytest

from harness.controller import PASSWORD, make_context
from harness.hostile import stranger_of, whole_app
from xfleet_controller.auth import service as auth
from xfleet_controller.config import ControllerSettings
from xfleet_controller.context import Context
from xfleet_controller.db import Database
from xfleet_controller.proxies import behind, networks_of
from xfleet_controller.serve import check_listen, check_urls
from xfleet_runtime.errors import Unusable
from xfleet_runtime.log import configure_logging

LOOPBACK = "http://127.0.0.1:2053"


async def test_whoever_does_not_know_the_base_path_is_not_told_it(database: Database, tmp_path: Path) -> None:
    context = make_context(database, tmp_path, base_path="/s3cret")
    async with stranger_of(context) as stranger:
        for path in ("/", "/login", "/s3cre", "/s3crets/login", "/S3CRET/login", "//s3cret/login", "/api/v1/session"):
            for method in ("GET", "POST", "HEAD", "OPTIONS", "PUT"):
                answer = await stranger.request(method, f"http://panel.test{path}")
                assert answer.status_code == 404, (method, path)
                assert "s3cret" not in answer.text + str(answer.headers), (method, path)
        assert (await stranger.get("http://panel.test/s3cret/login")).status_code == 200
        assert (await stranger.get("http://panel.test/s3cret")).status_code == 303


@pytest.mark.parametrize("host", ["", "[", "a b", 'e"><script>', "a:99999", "a:b", "a@b", "a/b", "x" * 300, "e\xe9"])
async def test_a_malformed_host_is_refused_before_it_reaches_a_link(api: httpx.AsyncClient, host: str) -> None:
    answer = await api.get("/api/v1/clients", headers={"host": host.encode("latin-1")})
    assert answer.status_code == 400
    assert host.strip() == "" or host not in answer.text


@pytest.mark.parametrize("origin", ["http://[", "null", "x", "//", "http://panel.test:1", "http://panel.test.evil"])
async def test_a_foreign_or_broken_origin_may_not_sign_in(context: Context, origin: str) -> None:
    await auth.ensure_first_admin(context, PASSWORD)
    async with stranger_of(context) as stranger:
        fields = {"username": "admin", "password": PASSWORD}
        for answer in (
            await stranger.post("/login", data=fields, headers={"origin": origin}),
            await stranger.post("/api/v1/session", json=fields, headers={"origin": origin}),
        ):
            assert answer.status_code == 403
            assert "set-cookie" not in answer.headers


async def test_metrics_are_not_for_what_a_proxy_or_a_lured_browser_passes_on(context: Context) -> None:
    async with stranger_of(context) as near:
        assert (await near.get(f"{LOOPBACK}/metrics")).status_code == 200
        for headers in ({"x-forwarded-for": "127.0.0.1"}, {"forwarded": "for=127.0.0.1"}, {"via": "1.1 x"}):
            assert (await near.get(f"{LOOPBACK}/metrics", headers=headers)).status_code == 403
        assert (await near.get("http://rebound.example/metrics")).status_code == 403


async def test_metrics_behind_a_proxy_on_this_machine_want_the_token(database: Database, tmp_path: Path) -> None:
    context = make_context(database, tmp_path, behind_proxy="127.0.0.0/8", metrics_token="for-prometheus")
    async with stranger_of(context) as near:
        assert (await near.get(f"{LOOPBACK}/metrics")).status_code == 403
        for wrong in ("Bearer", "Bearer ", "Bearer for", "for-prometheu", "Bearer None"):
            assert (await near.get(f"{LOOPBACK}/metrics", headers={"authorization": wrong})).status_code == 403
        right = {"authorization": "Bearer for-prometheus", "x-forwarded-for": "203.0.113.9"}
        assert (await near.get(f"{LOOPBACK}/metrics", headers=right)).status_code == 200


async def address_seen(context: Context, peer: str, forwarded_for: str) -> str:
    """The address a sign-in through these proxies is noted with; empty when it was turned away."""
    await auth.ensure_first_admin(context, PASSWORD)
    app = whole_app(context)
    if context.settings.behind_proxy:
        app = behind(app, networks_of(context.settings.behind_proxy))
    transport = httpx.ASGITransport(app, client=(peer, 1))
    async with httpx.AsyncClient(transport=transport, base_url="http://panel.test") as client:
        client.headers["x-forwarded-for"] = forwarded_for
        made = await client.post("/api/v1/session", json={"username": "admin", "password": PASSWORD})
        if made.status_code != 201:
            return ""
        headers = {"authorization": f"Bearer {made.json()['token']}"}
        rows = (await client.get("/api/v1/account/sessions", headers=headers)).json()
        return next(row["address"] for row in rows if row["current"])


async def test_forwarded_addresses_are_believed_of_the_proxy_alone(database: Database, tmp_path: Path) -> None:
    plain = make_context(database, tmp_path)
    assert await address_seen(plain, "203.0.113.9", "192.0.2.1") == "203.0.113.9"
    proxied = make_context(database, tmp_path, behind_proxy="10.1.2.3/8, 192.168.0.0/16")
    assert await address_seen(proxied, "10.0.0.1", "192.0.2.1") == "192.0.2.1"
    assert await address_seen(proxied, "10.0.0.1", "127.0.0.1, 192.0.2.1") == "192.0.2.1"
    assert await address_seen(proxied, "192.168.7.7", "192.0.2.1, 10.0.0.9") == "192.0.2.1"
    assert await address_seen(proxied, "203.0.113.9", "192.0.2.1") == ""
    assert await address_seen(proxied, "127.0.0.1", "192.0.2.1") == "127.0.0.1"


@pytest.mark.parametrize(
    "wrong",
    [{"listen": "0.0.0.0"}, {"listen": "::"}, {"behind_proxy": "*"}, {"behind_proxy": "10.0.0.0/40"}],
)
def test_a_panel_that_cannot_be_shown_safely_does_not_start(wrong: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(Unusable):
        check_listen(ControllerSettings(data_dir=tmp_path, **wrong))


async def test_bodies_over_ten_megabytes_are_refused(browser: httpx.AsyncClient) -> None:
    large = b"name=" + b"x" * (11 * 1024 * 1024)
    form = {"content-type": "application/x-www-form-urlencoded"}
    for path in ("/clients/new", "/login"):
        assert (await browser.post(path, content=large, headers=form)).status_code == 413
    assert (await browser.post("/clients/new", files={"file": large})).status_code == 413
    assert (await browser.post("/api/v1/clients", content=large)).status_code in {413, 422}


async def test_static_files_lie_in_one_directory(browser: httpx.AsyncClient) -> None:
    for name in ("../filters.py", "..%2f..%2fpyproject.toml", "%2e%2e/x", "/etc/passwd", "%00", "css/../../filters.py"):
        assert (await browser.get(f"/static/x/{name}")).status_code in {400, 404}, name


@pytest.mark.parametrize(
    "wrong",
    [
        {"port": 99_999_999}, {"port": -5}, {"base_path": 'a b"<x>'}, {"base_path": "/../x"},
        {"broker_url": "nonsense"}, {"broker_url": "tls://x:99999"}, {"public_url": "javascript:x"},
        {"public_url": "https://["},
    ],
)  # fmt: skip
def test_settings_that_fit_in_no_url_are_refused_at_the_start(wrong: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(Unusable):
        check_urls(ControllerSettings(data_dir=tmp_path, **wrong))


@pytest.mark.parametrize("url", ["mysql://u:p@127.0.0.1/x", "sqlite:///x.db", "nonsense", "oracle+x://y"])
def test_a_database_nobody_supports_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(Unusable) as refused:
        Database(url)
    assert "u:p" not in str(refused.value)


def test_a_log_level_there_is_not_is_refused() -> None:
    with pytest.raises(Unusable):
        configure_logging("test", level="zzz")
