"""The whole way with nothing played: panel, broker, agent, Xray, a VPN app's link, bytes that show by themselves."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, async_playwright, expect

from harness.browser import AWAKE, CHROMIUM, FLAGS
from harness.fleet import PASSWORD, Fleet
from harness.xray import Sink, TlsTarget, XrayClient, free_port, transfer

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.browser,
    pytest.mark.real_xray,
    pytest.mark.real_broker,
]
UP, DOWN = 2_000_000, 8_000_000


@pytest_asyncio.fixture(loop_scope="module")
async def page() -> AsyncIterator[Page]:
    """A fresh browser whose console stays quiet."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt install chromium)")
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        context = await browser.new_context(permissions=["clipboard-read", "clipboard-write"])
        opened = await context.new_page()
        opened.on("console", lambda said: complaints.append(said.text) if said.type in {"error", "warning"} else None)
        yield opened
        await browser.close()
    assert complaints == []


async def test_newcomer_sees_the_bytes_that_went_through(
    fleet: Fleet, sink: Sink, target: TlsTarget, page: Page
) -> None:
    await page.goto(fleet.panel_url)
    await page.get_by_label("User name").fill("admin")
    await page.get_by_label("Password").fill(PASSWORD)
    await page.get_by_role("button", name="Sign in").click()
    card = page.get_by_role("article")
    await expect(card).to_contain_text("online")
    await expect(card).to_contain_text("running")

    await page.wait_for_selector(AWAKE)
    await page.get_by_role("link", name="Add inbound").first.click()
    form = page.get_by_role("dialog", name="Add inbound")
    await form.get_by_label("Name", exact=True).fill("front door")
    await form.get_by_label("Port").fill(str(free_port()))
    await form.get_by_label("Reality target").fill(f"127.0.0.1:{target.port}")
    await form.get_by_label("Server names").fill("reality.test")
    await form.get_by_role("button", name="Add inbound").click()
    await expect(form).to_be_hidden()
    await page.get_by_role("link", name="Inbounds").click()
    await expect(page.get_by_role("row", name="front door")).to_contain_text("live", timeout=15_000)

    await page.get_by_role("link", name="Clients").click()
    await page.wait_for_selector(AWAKE)
    await page.get_by_role("link", name="Add client").first.click()
    form = page.get_by_role("dialog", name="Add client")
    await form.get_by_label("Name", exact=True).fill("grace")
    await form.get_by_label("Quota").fill("1")
    await form.get_by_role("button", name="Add client").click()
    detail = page.get_by_role("dialog", name="grace")
    await detail.get_by_role("button", name="Copy: front door").click()
    link = await page.evaluate("navigator.clipboard.readText()")
    assert re.match(r"vless://[0-9a-f-]{36}@127\.0\.0\.1:", link)
    await detail.get_by_role("link", name="Done").click()

    row = page.get_by_role("row", name="grace")
    await expect(row).to_contain_text("0 B of 1 GB")
    await page.evaluate("window.unreloaded = true")
    await fleet.wait_online()
    async with XrayClient.from_link(link, send_through="127.0.0.2") as app:
        await transfer(app, sink, UP, DOWN)
    await expect(row).to_contain_text("9.54 MB of 1 GB", timeout=20_000)
    await expect(row).to_contain_text("7.63 MB")
    await expect(row).to_contain_text("online")
    assert await page.evaluate("window.unreloaded")

    await page.get_by_role("link", name="Dashboard").click()
    await expect(page.locator("#dashboard-totals")).to_contain_text("7.63 MB in total", timeout=10_000)
    await page.get_by_role("link", name="Tasks").click()
    await expect(page.get_by_role("row", name="Add client")).to_contain_text("completed")
