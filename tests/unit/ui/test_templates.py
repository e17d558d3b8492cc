"""Every page renders in every state, below its base path, and asks for nothing the content policy forbids."""

import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser

import pytest

from xfleet_controller.dashboard.present import chart_of
from xfleet_controller.gallery.pages import SPECIMENS, render_specimen
from xfleet_controller.settings.web import device_words
from xfleet_controller.templating import Templates, normalize_base_path
from xfleet_controller.traffic.query import Point
from xfleet_runtime.clock import FakeClock

NOW = datetime(2026, 11, 22, 14, 5, tzinfo=UTC)
BASE = "/x7k2"
TEMPLATES = Templates(base_path=BASE, clock=FakeClock(NOW))
URL_ATTRIBUTES = {"href", "src", "action", "hx-get", "hx-post", "hx-sse:connect"}
WITHOUT_SESSION = {f"{BASE}/login", f"{BASE}/login/code", f"{BASE}/invite"}
LABELLED = {"input", "select", "textarea"}


class PageReader(HTMLParser):
    """Collects what the checks ask about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def values(self, attribute: str) -> list[str]:
        return [attributes[attribute] for _tag, attributes in self.elements if attribute in attributes]


@pytest.fixture(scope="module", params=sorted(SPECIMENS))
def page(request: pytest.FixtureRequest) -> PageReader:
    return PageReader(render_specimen(TEMPLATES, request.param, NOW))


def test_every_url_is_below_the_base_path(page: PageReader) -> None:
    for _tag, attributes in page.elements:
        for name in URL_ATTRIBUTES & attributes.keys():
            assert attributes[name].startswith((BASE, "#")), attributes


def test_no_style_or_handler_attribute_and_no_inline_script(page: PageReader) -> None:
    for tag, attributes in page.elements:
        assert tag != "style"
        assert "style" not in attributes, (tag, attributes)
        assert not [name for name in attributes if name.startswith(("on", "hx-on"))], attributes
        assert tag != "script" or attributes.get("src"), attributes


def test_ids_are_unique(page: PageReader) -> None:
    ids = page.values("id")
    assert len(ids) == len(set(ids)), sorted(name for name in ids if ids.count(name) > 1)


def test_every_field_has_a_label(page: PageReader) -> None:
    labelled = set(page.values("for"))
    for tag, attributes in page.elements:
        if tag not in LABELLED or attributes.get("type") == "hidden" or "hidden" in attributes:
            continue
        assert attributes.get("id") in labelled or attributes.get("aria-label"), attributes


def test_every_form_that_changes_something_carries_thecsrf_token(page: PageReader) -> None:
    posts = [
        attributes
        for tag, attributes in page.elements
        if tag == "form" and attributes.get("method") == "post" and attributes["action"] not in WITHOUT_SESSION
    ]
    tokens = [attributes for _tag, attributes in page.elements if attributes.get("name") == "csrf_token"]
    assert len(tokens) == len(posts)


def test_every_described_field_points_at_its_text(page: PageReader) -> None:
    ids = set(page.values("id"))
    for target in page.values("aria-describedby") + page.values("aria-labelledby") + page.values("aria-controls"):
        assert target in ids or target == "dialog-title", target


def test_every_button_and_link_says_what_it_does() -> None:
    for name in SPECIMENS:
        text = render_specimen(TEMPLATES, name, NOW)
        for attributes, body in re.findall(r"<(?:button|a)\b([^>]*)>(.*?)</(?:button|a)>", text, re.DOTALL):
            words = re.sub(r"<[^>]+>", "", body).strip()
            assert words or "aria-label=" in attributes, (name, attributes)


def test_right_to_left_takes_its_own_stylesheet() -> None:
    text = render_specimen(TEMPLATES, "dashboard-rtl", NOW)
    assert 'dir="rtl"' in text
    assert "tabler.rtl.min.css" in text
    assert "/tabler.min.css" not in text


def test_offline_server_shows_no_frozen_figures() -> None:
    text = render_specimen(TEMPLATES, "server-offline", NOW)
    assert "Last seen 17 min ago" in text
    assert "<progress" not in text.partition("Last known figures")[0]


def test_single_server_panel_has_no_server_column_or_selector() -> None:
    text = render_specimen(TEMPLATES, "inbound-form-wrong", NOW)
    assert 'select class="form-select" id="field-server_id"' not in text
    assert 'type="hidden" name="server_id"' in text


@pytest.mark.parametrize(("given", "prefix"), [("", ""), ("/", ""), ("x7k2", "/x7k2"), ("/a/b/", "/a/b")])
def test_base_path_is_a_prefix_without_a_trailing_slash(given: str, prefix: str) -> None:
    assert normalize_base_path(given) == prefix


def test_names_with_markup_are_text() -> None:
    text = TEMPLATES.render("errors/_body.html", error={"status": 1, "title": "<b>", "message": "&", "error_id": ""})
    assert "&lt;b&gt;" in text


def test_live_fragment_is_wrapped_for_its_target() -> None:
    text = TEMPLATES.partial(
        "x-1", "errors/_body.html", error={"status": 1, "title": "", "message": "", "error_id": ""}
    )
    assert text.startswith('<hx-partial hx-target="#x-1" hx-swap="outerMorph">')


def test_browsers_are_named_as_people_name_them() -> None:
    chrome = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36"
    assert device_words(chrome) == "Chrome on Linux"
    assert device_words(chrome + " Edg/120.0") == "Edge on Linux"
    assert device_words("python-httpx/0.28") == "python-httpx/0.28"


def test_rates_of_the_chart_are_averages_and_an_idle_fleet_has_none() -> None:
    points = [Point(NOW + timedelta(minutes=minute), 600 * minute, 6000) for minute in range(4)]
    chart = chart_of("24h", points, 60, 2)
    assert chart.up_bytes_per_s == (5.0, 25.0)
    assert chart.down_bytes_per_s == (100.0, 100.0)
    assert chart.at_s == (int(NOW.timestamp()), int(NOW.timestamp()) + 120)
    assert chart_of("1h", [Point(NOW, 0, 0)], 60, 1).at_s == ()
