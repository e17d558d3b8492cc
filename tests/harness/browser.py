"""Chromium for tests: one browser per session, a page that fails the test on console errors."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
AWAKE = 'body[data-live="live"]'
"""True once the page's own JavaScript works: before that, links and forms go to pages of their own."""
DESK = {"width": 1440, "height": 960}
PHONE = {"width": 390, "height": 844}


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """A headless Chromium; the test is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium (apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """A page with what its console complained about."""

    context: BrowserContext
    page: Page
    complaints: list[str] = field(default_factory=list[str])


@contextmanager
def visiting(browser: Browser, *, phone: bool = False, dark: bool = False, script: bool = True) -> Iterator[Visit]:
    """A fresh browser profile with one page; complaints of its console are collected."""
    context = browser.new_context(
        viewport=PHONE if phone else DESK,  # pyright: ignore[reportArgumentType]
        color_scheme="dark" if dark else "light",
        is_mobile=phone,
        has_touch=phone,
        java_script_enabled=script,
    )
    visit = Visit(context, context.new_page())
    visit.page.set_default_timeout(10_000)
    visit.page.on(
        "console",
        lambda message: visit.complaints.append(message.text) if message.type in {"error", "warning"} else None,
    )
    visit.page.on("pageerror", lambda error: visit.complaints.append(str(error)))
    try:
        yield visit
    finally:
        context.close()
