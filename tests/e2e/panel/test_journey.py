"""The way of a newcomer through the panel in a real browser; bytes are played by the ledger's own tables."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, expect

from harness.browser import AWAKE, Visit, visiting
from harness.panel import ADMIN, PASSWORD, PanelWorld, running_panel

pytestmark = pytest.mark.browser


@pytest.fixture
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PanelWorld]:
    with running_panel(tmp_path_factory.mktemp("panel")) as panel:
        yield panel


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visit]:
    with visiting(browser) as opened:
        yield opened


def sign_in(visit: Visit, world: PanelWorld) -> None:
    visit.page.goto(world.base_url)
    visit.page.get_by_label("User name").fill(ADMIN)
    visit.page.get_by_label("Password").fill(PASSWORD)
    visit.page.get_by_role("button", name="Sign in").click()
    expect(visit.page.get_by_role("heading", name="Dashboard")).to_be_visible()


def add_inbound(visit: Visit, name: str) -> None:
    visit.page.wait_for_selector(AWAKE)
    visit.page.get_by_role("link", name="Add inbound").first.click()
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill(name)
    dialog.get_by_role("button", name="Add inbound").click()
    expect(dialog).to_be_hidden()


def add_client(visit: Visit, name: str, quota: str = "") -> None:
    visit.page.wait_for_selector(AWAKE)
    visit.page.get_by_role("link", name="Add client").first.click()
    dialog = visit.page.get_by_role("dialog")
    dialog.get_by_label("Name", exact=True).fill(name)
    dialog.get_by_label("Quota").fill(quota)
    dialog.get_by_role("button", name="Add client").click()
    expect(dialog).to_have_accessible_name(name)


def test_newcomer_gets_from_sign_in_to_live_bytes(visit: Visit, world: PanelWorld) -> None:
    visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visit.page
    sign_in(visit, world)
    expect(page.get_by_text("Three steps to the first connection")).to_be_visible()
    add_inbound(visit, "edge")
    page.get_by_role("link", name="Inbounds").click()
    expect(page.get_by_role("link", name="edge")).to_be_visible()
    page.get_by_role("link", name="Clients").click()
    add_client(visit, "alice", "1")
    page.get_by_role("button", name="Copy: Subscription URL").click()
    subscription = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(rf"{re.escape(world.base_url)}/sub/[0-9a-f]+", subscription)
    page.get_by_role("dialog").get_by_role("link", name="Done").click()
    row = page.get_by_role("row", name="alice")
    expect(row).to_contain_text("0 B of 1 GB")
    expect(page.get_by_role("banner").get_by_text("Live", exact=True)).to_be_visible()
    world.count("alice", 10 * 1024**2, 90 * 1024**2)
    expect(row).to_contain_text("100 MB of 1 GB")
    expect(row).to_contain_text("online")
    assert visit.complaints == []


def test_list_shows_what_was_added_without_a_reload(visit: Visit, world: PanelWorld) -> None:
    sign_in(visit, world)
    visit.page.goto(f"{world.base_url}/inbounds")
    visit.page.evaluate("window.unreloaded = true")
    add_inbound(visit, "first")
    expect(visit.page.get_by_role("row", name="first")).to_contain_text("Reality")
    visit.page.get_by_role("row", name="first").get_by_role("button", name="Disable").click()
    expect(visit.page.get_by_role("row", name="first")).to_contain_text("disabled")
    assert visit.page.evaluate("window.unreloaded")


def test_search_narrows_the_list_while_typing(visit: Visit, world: PanelWorld) -> None:
    sign_in(visit, world)
    visit.page.goto(f"{world.base_url}/inbounds")
    add_inbound(visit, "door")
    visit.page.goto(f"{world.base_url}/clients")
    for name in ("anna", "bert"):
        add_client(visit, name)
        visit.page.keyboard.press("Escape")
        expect(visit.page.get_by_role("dialog")).to_be_hidden()
    visit.page.wait_for_selector(AWAKE)
    visit.page.keyboard.press("Control+k")
    visit.page.keyboard.type("ann")
    expect(visit.page.get_by_role("row", name="bert")).to_be_hidden()
    expect(visit.page.get_by_role("row", name="anna")).to_be_visible()
    expect(visit.page).to_have_url(re.compile("search=ann"))
    world.count("anna", 5_000_000, 0)
    expect(visit.page.get_by_role("row", name="anna")).to_contain_text("4.77 MB")
    assert visit.complaints == []


def test_server_card_follows_the_heartbeats(visit: Visit, world: PanelWorld) -> None:
    sign_in(visit, world)
    expect(visit.page.get_by_role("article")).to_contain_text("12%")
    world.beat("local", cpu_percent=87)
    expect(visit.page.get_by_role("article")).to_contain_text("87%")
    assert visit.complaints == []


def test_deleted_client_disappears_after_a_question(visit: Visit, world: PanelWorld) -> None:
    sign_in(visit, world)
    visit.page.goto(f"{world.base_url}/inbounds")
    add_inbound(visit, "door")
    visit.page.goto(f"{world.base_url}/clients")
    add_client(visit, "leaving")
    visit.page.keyboard.press("Escape")
    expect(visit.page.get_by_role("dialog")).to_be_hidden()
    visit.page.get_by_role("row", name="leaving").get_by_role("link", name="Delete").click()
    dialog = visit.page.get_by_role("dialog", name="Delete client?")
    expect(dialog).to_contain_text("leaving is cut off on every server at once")
    dialog.get_by_role("button", name="Delete client").click()
    expect(visit.page.get_by_text("No client yet")).to_be_visible()
    expect(visit.page.get_by_text("Client deleted")).to_be_visible()


def test_ended_session_leads_to_the_sign_in_form(visit: Visit, world: PanelWorld) -> None:
    sign_in(visit, world)
    visit.page.goto(f"{world.base_url}/clients")
    visit.page.wait_for_selector(AWAKE)
    visit.context.clear_cookies()
    visit.page.get_by_label("Search clients").last.fill("x")
    expect(visit.page.get_by_role("heading", name="Sign in to your fleet")).to_be_visible()


def test_hidden_page_closes_its_stream_and_catches_up_when_shown(visit: Visit, world: PanelWorld) -> None:
    page = visit.page
    sign_in(visit, world)
    expect(page.get_by_role("banner").get_by_text("Live", exact=True)).to_be_visible()
    hide = """hidden => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});
              document.dispatchEvent(new Event('visibilitychange')); }"""
    page.evaluate(hide, True)
    world.beat("local", cpu_percent=55)
    page.wait_for_timeout(2500)
    expect(page.get_by_role("article")).to_contain_text("12%")
    page.evaluate(hide, False)
    expect(page.get_by_role("article")).to_contain_text("55%")


def test_journey_works_on_a_phone(browser: Browser, world: PanelWorld) -> None:
    with visiting(browser, phone=True) as visit:
        sign_in(visit, world)
        add_inbound(visit, "edge")
        visit.page.get_by_role("button", name="Menu").click()
        visit.page.get_by_role("link", name="Clients").click()
        add_client(visit, "alice")
        expect(visit.page.get_by_role("img", name="QR code of the subscription")).to_be_visible()
        assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert visit.complaints == []
