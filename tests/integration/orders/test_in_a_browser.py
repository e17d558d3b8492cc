"""Live logs, orders and rollouts in a real browser, with an agent that speaks the contract."""

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from harness.broker import eventually
from harness.browser import AWAKE, CHROMIUM, FLAGS
from harness.controller import PASSWORD
from harness.controller_fleet import SmallAgent, World
from harness.orders import Log
from xfleet_contracts import codec, subjects
from xfleet_contracts.care import BackupOrder, BlobPart, BlobSent
from xfleet_contracts.commands import Command, XrayVersion
from xfleet_contracts.installs import XrayInstalled
from xfleet_controller.auth import service as auth
from xfleet_controller.edge import cookie_name

pytestmark = [pytest.mark.real_broker, pytest.mark.browser, pytest.mark.asyncio(loop_scope="module")]
HOSTILE = "<img src=x onerror=alert(1)>"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def page(world: World, base_url: str) -> AsyncIterator[Page]:
    """A page of a signed-in admin; nothing may complain on its console."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt install chromium)")
    context = world.controller.context
    made = await auth.sign_in(context, "admin", PASSWORD, address="127.0.0.1", kind="cookie")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        profile = await browser.new_context(base_url=base_url)
        await profile.add_cookies([{"name": cookie_name(context), "value": made.token, "url": base_url}])
        opened = await profile.new_page()
        opened.on("console", lambda said: complaints.append(said.text) if _is_complaint(said) else None)
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        yield opened
        await browser.close()
    assert complaints == []


def _is_complaint(said: Any) -> bool:
    """A form that is refused (422) is told on the console too."""
    return said.type == "error" and "422" not in said.text


async def test_a_log_is_followed_while_it_is_looked_at(page: Page, agent: SmallAgent, world: World) -> None:
    log = Log(agent)
    log.lines = ("first", HOSTILE)
    await page.goto("/servers/1/logs?follow=on")
    await page.wait_for_selector(AWAKE)
    lines = page.locator("#log-lines .log-line")
    await expect(lines).to_have_text(["first", HOSTILE])
    await eventually(lambda: log.leases)
    await log.tell(HOSTILE, "third", dropped_count=7)
    await expect(lines).to_have_text(["first", HOSTILE, "third"])
    await expect(page.get_by_text("7 lines were left out")).to_be_visible()
    await log.tell(*(f"line {number}" for number in range(400)))
    await expect(page.get_by_text("line 399", exact=True)).to_be_in_viewport()
    await page.get_by_label("Only lines with this text").fill("line 3")
    await page.get_by_label("Only lines with this text").press("Enter")
    await eventually(lambda: log.leases[-1].contains == "line 3")
    await page.get_by_text("Follow", exact=True).click()
    hub = world.controller.context.log_hub
    await eventually(lambda: hub is not None and not hub.leases)
    assert not await page.locator("#log-lines img").count()


async def test_an_order_is_given_by_a_button_and_its_end_is_seen(page: Page, agent: SmallAgent) -> None:
    async def restarted(_command: Command) -> XrayVersion:
        return XrayVersion(version="26.1.1")

    agent.verbs["xray.restart"] = restarted
    await page.goto("/servers/1")
    await page.wait_for_selector(AWAKE)
    await page.get_by_role("button", name="Restart Xray").click()
    await expect(page.get_by_text("Xray is being restarted")).to_be_visible()
    await expect(page.locator("#dashboard-tasks").get_by_text("completed").first).to_be_visible()
    await page.get_by_role("link", name="Install Xray").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_label("Version").fill("nonsense")
    await dialog.get_by_role("button", name="Install").click()
    await expect(dialog.get_by_text("Give a version such as")).to_be_visible()
    await dialog.get_by_role("button", name="Close").click()
    async with page.expect_download() as downloading:
        agent.verbs["backup"] = _backup(agent)
        await page.get_by_role("button", name="Download backup").click()
    assert (await downloading.value).suggested_filename.startswith("xfleet-local-")


def _backup(agent: SmallAgent) -> Any:
    async def backup(command: Command) -> BlobSent:
        transfer = msgspec.json.decode(command.body, type=BackupOrder).transfer
        part = codec.encode(BlobPart(index=0, parts_count=1, data=b"archive"))
        await agent.link.request(subjects.blob(agent.sid, transfer), part, timeout_s=5)
        digest = hashlib.sha256(b"archive").hexdigest()
        return BlobSent(transfer=transfer, size_bytes=7, sha256=digest, parts_count=1)

    return backup


async def test_a_rollout_is_begun_from_the_form(page: Page, agent: SmallAgent) -> None:
    async def installed(_command: Command) -> XrayInstalled:
        return XrayInstalled(version="26.2.6", previous="26.1.1")

    agent.verbs["xray.install"] = installed
    await page.goto("/rollouts")
    await page.wait_for_selector(AWAKE)
    await page.get_by_role("link", name="New rollout").click()
    dialog = page.get_by_role("dialog")
    await dialog.get_by_text("Xray", exact=True).click()
    await dialog.get_by_label("Version").fill("26.2.6")
    await dialog.get_by_role("button", name="Begin").click()
    await expect(dialog).to_be_hidden()
    await page.get_by_role("link", name="Xray 26.2.6").click()
    await expect(
        page.get_by_text("It was offline when its turn came.").or_(page.get_by_text("watched")).first
    ).to_be_visible()
    await page.get_by_role("button", name="Cancel for good").click()
    await expect(page.get_by_text("Cancelled by admin.")).to_be_visible()
