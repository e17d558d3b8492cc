"""Orders and rollouts with a browser, with and without htmx; and the request log."""

import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
import structlog

from harness.broker import eventually
from harness.controller_fleet import SmallAgent, World
from harness.hostile import browser_of
from xfleet_contracts.care import CertificateInfo, CertificateList, CheckResult, ChecksDone, ChecksRun
from xfleet_contracts.commands import Command, Reply, XrayConfig, XrayVersion
from xfleet_contracts.errors import ErrorBody
from xfleet_contracts.installs import XrayInstalled

pytestmark = [pytest.mark.real_broker, pytest.mark.asyncio(loop_scope="module")]
HTMX = {"hx-request": "true", "hx-target": "div#dialog-content"}
ORDERS = "/servers/1/orders"
EVIL = "<script>alert(1)</script>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def browser(world: World) -> AsyncIterator[httpx.AsyncClient]:
    async with browser_of(world.controller.context) as client:
        yield client


async def restarted(_command: Command) -> XrayVersion:
    return XrayVersion(version="26.1.1")


async def test_buttons_order_and_say_so(browser: httpx.AsyncClient, agent: SmallAgent) -> None:
    agent.verbs |= {"xray.restart": restarted, "xray.stop": restarted}
    page = (await browser.get(ORDERS)).text
    assert "Restart Xray" in page
    assert "Orders" in (await browser.get("/servers/1")).text
    plain = await browser.post(f"{ORDERS}/restart")
    assert (plain.status_code, plain.headers["location"]) == (303, ORDERS)
    htmx = await browser.post(f"{ORDERS}/stop", headers={"hx-request": "true"})
    assert (htmx.status_code, "Xray is being stopped" in htmx.headers["hx-trigger"]) == (204, True)
    away = await browser.post("/servers/2/orders/restart", headers={"hx-request": "true"})
    assert "offline" in away.headers["hx-trigger"]
    await eventually(lambda: len(agent.commands) == 2)


@pytest.mark.parametrize(
    ("form", "fields", "wrong"),
    [
        ("install", {"version": "x", "url": "ftp://x", "sha256": "1"}, {"version", "url", "sha256"}),
        ("geofiles", {}, {"url_0"}),
        ("geofiles", {"url_1": "https://x.example/f"}, {"sha256_1"}),
        ("geofiles", {"url_1": "nonsense", "sha256_1": "z"}, {"url_1", "sha256_1"}),
        ("certificates", {"domains": "", "days_count": "x"}, {"domains", "days_count"}),
        ("checks", {"tls_targets": "a b c", "free_ports": "99999"}, {"free_ports"}),
        ("restore", {}, {"archive"}),
    ],
    ids=["install", "no geo file", "half a geo file", "bad geo file", "certificate", "checks", "restore"],
)
async def test_wrong_fields_come_back_with_what_is_wrong(
    browser: httpx.AsyncClient, agent: SmallAgent, form: str, fields: dict[str, str], wrong: set[str]
) -> None:
    agent.verbs["certs.list"] = lambda _command: _done(CertificateList())
    assert (await browser.get(f"{ORDERS}/{form}", headers=HTMX)).status_code == 200
    answer = await browser.post(f"{ORDERS}/{form}", data=fields, headers=HTMX)
    assert answer.status_code == 422, answer.text
    assert set(re.findall(r'id="error-(\w+)"', answer.text)) == wrong


async def _done(answer: Any) -> Any:
    return answer


async def test_what_a_hostile_server_says_is_text(browser: httpx.AsyncClient, agent: SmallAgent) -> None:
    certificate = CertificateInfo(name=EVIL, domains=(EVIL,), issuer=EVIL, not_after_ms=2**62, certificate_path=EVIL)
    agent.verbs |= {
        "checks.run": lambda _command: _done(ChecksDone(results=(CheckResult(name=EVIL, status="failed", text=EVIL),))),
        "certs.list": lambda _command: _done(CertificateList(certificates=(certificate,))),
        "xray.config": lambda _command: _done(XrayConfig(config={EVIL: EVIL, "password": "hush"})),
    }
    pages = [
        await browser.post(f"{ORDERS}/checks", data={"tls_targets": "www.example.com"}),
        await browser.get(f"{ORDERS}/certificates"),
        await browser.get(f"{ORDERS}/config"),
    ]
    for page in pages:
        assert page.status_code == 200
        assert "&lt;script&gt;" in page.text
        assert EVIL not in page.text
        assert "hush" not in page.text
    assert msgspec.json.decode(agent.commands[0].body, type=ChecksRun).tls_targets == ("www.example.com:443",)


async def test_a_refusal_of_the_server_is_shown_in_the_dialog(browser: httpx.AsyncClient, agent: SmallAgent) -> None:
    refusal = Reply(ok=False, error=ErrorBody(code="storage", message="No room on the disk."))
    agent.verbs |= dict.fromkeys(("xray.config", "checks.run", "certs.list"), lambda _command: _done(refusal))
    for path in ("config", "certificates"):
        assert "No room on the disk." in (await browser.get(f"{ORDERS}/{path}")).text
    assert "No room on the disk." in (await browser.post(f"{ORDERS}/checks")).text
    backup = await browser.post("/servers/2/orders/backup")
    assert (backup.status_code, "offline" in backup.text) == (503, True)


async def test_tasks_are_browsed_by_operation_and_trace_and_taken_back(browser: httpx.AsyncClient) -> None:
    await browser.post("/servers/2/orders/start")
    page = (await browser.get("/tasks", params={"operation": "xray.start", "by": "admin", "server": "2"})).text
    task_id = page.partition('id="task-row-')[2].partition('"')[0]
    assert task_id
    assert "No task matches" in (await browser.get("/tasks", params={"by": "nobody"})).text
    detail = (await browser.get(f"/tasks/{task_id}")).text
    trace_id = re.search(r"trace=([0-9a-f]{32})", detail)
    assert trace_id is not None
    assert f'id="task-row-{task_id}"' in (await browser.get("/tasks", params={"trace": trace_id[1], "server": ""})).text
    assert "Take it back" in detail
    assert (await browser.post(f"/tasks/{task_id}/cancel")).status_code == 303
    assert "taken back" in (await browser.get(f"/tasks/{task_id}")).text


async def test_a_rollout_is_begun_watched_and_cancelled(browser: httpx.AsyncClient, agent: SmallAgent) -> None:
    agent.verbs["xray.install"] = lambda _command: _done(XrayInstalled(version="26.2.6", previous="26.1.1"))
    assert (await browser.get("/rollouts/new", headers=HTMX)).status_code == 200
    wrong = await browser.post(
        "/rollouts/new", data={"verb": "xray.install", "version": "", "waves": "1", "watch_s": "9"}
    )
    assert (wrong.status_code, 'id="error-version"' in wrong.text) == (422, True)
    fields = {"verb": "xray.install", "version": "v26.2.6", "waves": "1, rest", "watch_s": "60", "server_ids": "1"}
    begun = await browser.post("/rollouts/new", data=fields)
    assert begun.status_code == 303, begun.text
    await eventually(lambda: any(each.verb == "xray.install" for each in agent.commands))
    page = (await browser.get(begun.headers["location"])).text
    assert "Xray 26.2.6" in page
    assert "Xray 26.2.6" in (await browser.get("/rollouts")).text
    cancelled = await browser.post(f"{begun.headers['location']}/cancel")
    assert cancelled.status_code == 303
    assert "Cancelled by admin." in (await browser.get(begun.headers["location"])).text


async def test_each_request_leaves_one_line_with_its_trace_and_no_secret(browser: httpx.AsyncClient) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    parent = {"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"}
    with structlog.testing.capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        page = await browser.get("/servers/1", headers=parent)
        missing = await browser.get("/servers/99", headers=parent)
        api = await browser.get("/api/v1/servers/99", headers=parent)
        await browser.get("/sub/very-secret", headers={"traceparent": "00-nonsense"})
    told = [line for line in lines if line["event"] == "request"]
    assert [line["path"] for line in told] == [
        "/servers/{server_id}", "/servers/{server_id}", "/api/v1/servers/{server_id}", "/sub/{sub_id}",
    ]  # fmt: skip
    assert [line["status"] for line in told] == [200, 404, 404, 404]
    assert {line["trace_id"] for line in told[:3]} == {trace_id}
    assert told[3]["trace_id"] not in {"", trace_id}
    assert {line["actor"] for line in told[:3]} == {"admin:admin"}
    assert all(line["took_ms"] >= 0 and line["method"] == "GET" for line in told)
    assert "very-secret" not in str(lines)
    assert page.headers["traceparent"].split("-")[1] == trace_id
    assert trace_id in missing.text
    assert api.json()["trace_id"] == trace_id


async def test_an_uploaded_backup_goes_to_the_server_it_is_for(browser: httpx.AsyncClient) -> None:
    files = {"archive": ("a.tar.gz", b"x" * 3_000_000)}
    answer = await browser.post("/servers/2/orders/restore", files=files, headers=HTMX)
    assert (answer.status_code, "offline" in answer.text) == (422, True), answer.text
