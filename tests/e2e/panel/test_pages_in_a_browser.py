"""Every page in a real browser: silent console under the strict policy, and no sideways scrolling on a phone."""

import re

import pytest
from playwright.sync_api import Browser, Page, expect

from harness.browser import AWAKE, visiting
from xfleet_controller.gallery.pages import SPECIMENS

pytestmark = pytest.mark.browser


def test_every_page_is_quiet_on_a_desk_in_light(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        for name in SPECIMENS:
            visit.page.goto(f"{gallery}/{name}")
            expect(visit.page.locator("h1").first).to_be_visible()
            assert visit.complaints == [], name


def test_every_page_fits_a_phone_in_the_dark(browser: Browser, gallery: str) -> None:
    with visiting(browser, phone=True, dark=True) as visit:
        for name in SPECIMENS:
            visit.page.goto(f"{gallery}/{name}")
            assert visit.page.locator("html").get_attribute("data-bs-theme") == "dark"
            assert visit.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), name
            assert visit.complaints == [], name


def open_form(page: Page, gallery: str) -> None:
    page.goto(f"{gallery}/clients")
    page.wait_for_selector(AWAKE)
    page.get_by_role("link", name="Add client").click()
    expect(page.get_by_role("dialog")).to_be_visible()


def test_form_opens_in_a_dialog_with_the_first_field_focused(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        open_form(visit.page, gallery)
        expect(visit.page.get_by_label("Name", exact=True)).to_be_focused()
        expect(visit.page.get_by_role("dialog")).to_have_accessible_name("Add client")
        visit.page.keyboard.press("Escape")
        expect(visit.page.get_by_role("dialog")).to_be_hidden()
        assert visit.complaints == []


def test_refused_form_stays_open_with_the_error_at_its_field(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        open_form(visit.page, gallery)
        visit.page.get_by_label("Name", exact=True).fill("alice")
        visit.page.get_by_role("dialog").get_by_role("button", name="Add client").click()
        name = visit.page.get_by_label("Name", exact=True)
        expect(name).to_have_attribute("aria-invalid", "true")
        expect(name).to_have_accessible_description("A client named alice exists already.")
        expect(name).to_be_focused()


def test_accepted_form_closes_the_dialog_and_says_so(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        open_form(visit.page, gallery)
        visit.page.get_by_label("Name", exact=True).fill("bob")
        visit.page.keyboard.press("Enter")
        expect(visit.page.get_by_role("dialog")).to_be_hidden()
        expect(visit.page.get_by_text("Client saved")).to_be_visible()
        assert visit.complaints == []


def test_form_works_without_javascript(browser: Browser, gallery: str) -> None:
    with visiting(browser, script=False) as visit:
        visit.page.goto(f"{gallery}/clients")
        visit.page.get_by_role("link", name="Add client").click()
        visit.page.get_by_label("Name", exact=True).fill("alice")
        visit.page.get_by_role("button", name="Add client").click()
        expect(visit.page.get_by_text("A client named alice exists already.")).to_be_visible()


def test_phone_reaches_every_page_without_javascript(browser: Browser, gallery: str) -> None:
    with visiting(browser, phone=True, script=False) as visit:
        visit.page.goto(f"{gallery}/clients")
        expect(visit.page.get_by_role("link", name="Tasks")).to_be_visible()


def test_phone_menu_opens_by_its_button(browser: Browser, gallery: str) -> None:
    with visiting(browser, phone=True) as visit:
        visit.page.goto(f"{gallery}/clients")
        visit.page.wait_for_selector(AWAKE)
        expect(visit.page.get_by_role("link", name="Tasks")).to_be_hidden()
        visit.page.get_by_role("button", name="Menu").click()
        expect(visit.page.get_by_role("link", name="Tasks")).to_be_visible()


def test_theme_is_remembered_and_applied_before_the_first_paint(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        page = visit.page
        page.goto(f"{gallery}/clients")
        page.wait_for_selector(AWAKE)
        page.get_by_role("banner").get_by_role("button", name="Theme").click()
        page.get_by_role("banner").get_by_role("button", name="Dark").click()
        expect(page.locator("html")).to_have_attribute("data-bs-theme", "dark")
        page.goto(f"{gallery}/tasks")
        assert page.locator("html").get_attribute("data-bs-theme") == "dark"
        assert visit.complaints == []


def test_ctrl_k_goes_to_the_search_field(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        visit.page.goto(f"{gallery}/tasks")
        visit.page.wait_for_selector(AWAKE)
        visit.page.keyboard.press("Control+k")
        expect(visit.page.get_by_label("Search clients")).to_be_focused()


def test_copy_button_copies_the_link(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        visit.context.grant_permissions(["clipboard-read", "clipboard-write"])
        visit.page.goto(f"{gallery}/client")
        visit.page.get_by_role("button", name="Copy: Subscription URL").click()
        copied = visit.page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith("https://panel.example.com/x7k2/sub/")


def test_kind_of_inbound_shows_only_its_own_fields(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        visit.page.goto(f"{gallery}/inbound-form")
        expect(visit.page.get_by_label("Reality target")).to_be_visible()
        expect(visit.page.get_by_label("Path")).to_be_hidden()
        visit.page.get_by_label("VLESS + WebSocket").check()
        expect(visit.page.get_by_label("Path")).to_be_visible()
        expect(visit.page.get_by_label("Reality target")).to_be_hidden()


def test_live_message_changes_its_fragment_and_the_chart(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        visit.page.goto(f"{gallery}/dashboard")
        expect(visit.page.get_by_role("heading", name="Changed live")).to_be_visible()
        expect(visit.page.locator('[data-chart-value="down"]')).to_have_text("616 Mbit/s")
        expect(visit.page.get_by_role("banner").locator("[data-live-state]")).to_have_attribute(
            "data-live-state", "live"
        )
        assert visit.complaints == []


def test_chart_is_drawn_in_resolved_colours(browser: Browser, gallery: str) -> None:
    with visiting(browser) as visit:
        visit.page.goto(f"{gallery}/dashboard")
        visit.page.wait_for_selector(".chart canvas")
        colours = visit.page.evaluate(
            """() => { const c = document.querySelector('.chart canvas');
            const d = c.getContext('2d').getImageData(0, 0, c.width, c.height).data; const seen = new Set();
            for (let i = 0; i < d.length; i += 4) if (d[i+3] > 200) seen.add([d[i], d[i+1], d[i+2]].join());
            return [...seen]; }"""
        )
        assert any(re.fullmatch(r"(?!0,0,0)\d+,\d+,\d+", colour) for colour in colours)
        assert len(colours) > 3
