"""Renders the panel: one environment, every URL below the base path, every figure by a filter."""

import re
from collections.abc import Callable
from datetime import datetime
from functools import cache
from gettext import NullTranslations
from typing import Any, cast
from urllib.parse import urlencode

import jinja2
from markupsafe import Markup, escape

from xfleet_runtime.clock import Clock
from xfleet_ui import STATIC_DIR, TEMPLATES_DIR, filters
from xfleet_ui.assets import Assets


def normalize_base_path(base_path: str) -> str:
    """The prefix of every URL: empty, or a path with a leading and without a trailing slash."""
    stripped = base_path.strip("/")
    return f"/{stripped}" if stripped else ""


class Templates:
    """The template environment of one installation."""

    def __init__(self, *, base_path: str, clock: Clock, translations: NullTranslations | None = None) -> None:
        self.base_path = normalize_base_path(base_path)
        self.assets = Assets(STATIC_DIR)
        self._icons = frozenset(re.findall(r'<symbol id="([^"]+)"', (STATIC_DIR / "icons" / "sprite.svg").read_text()))
        self._environment = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES_DIR),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            extensions=["jinja2.ext.i18n"],
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=False,
        )
        cast("Any", self._environment).install_gettext_translations(translations or NullTranslations(), newstyle=True)
        self._environment.globals.update(url=self.url, static_url=self.static_url, icon=cache(self._icon))
        self._environment.filters.update(_filters(clock))

    def url(self, path: str, **query: str | int) -> str:
        """A URL of the panel from a path below the base path; empty query values are left out."""
        chosen = {name: value for name, value in query.items() if value != ""}
        return f"{self.base_path}{path}" + (f"?{urlencode(chosen)}" if chosen else "")

    def static_url(self, name: str) -> str:
        """The URL of a static file, safe to cache for ever."""
        return self.base_path + self.assets.url_path(name)

    def _icon(self, name: str, css: str = "") -> Markup:
        """One icon of the sprite; always decoration beside words, so hidden from screen readers.

        A name the sprite lacks is a bug and raises: `tools/vendor_ui.py --icons-only` adds it.
        """
        if name not in self._icons:
            raise KeyError(name)
        return Markup('<svg class="icon {}" aria-hidden="true" focusable="false"><use href="{}#{}"/></svg>').format(
            css, self.static_url("icons/sprite.svg"), name
        )

    def render(self, name: str, /, **context: object) -> str:
        """A template as text; a name the template needs and does not get is a bug and raises."""
        return self._environment.get_template(name).render(context)

    def partial(self, target_id: str, name: str, /, **context: object) -> str:
        """A fragment wrapped so that a live message replaces the element of that id with it."""
        body = self.render(name, **context)
        return f'<hx-partial hx-target="#{escape(target_id)}" hx-swap="outerMorph">{body}</hx-partial>'


def _filters(clock: Clock) -> dict[str, Callable[..., str]]:
    """The filters by the names templates use; those about time know what time it is."""

    def ago(at: datetime | None) -> str:
        return filters.format_ago(at, clock.now())

    def until(at: datetime | None) -> str:
        return filters.format_until(at, clock.now())

    return {
        "bytes": filters.format_bytes,
        "rate": filters.format_rate,
        "number": filters.format_number,
        "percent": filters.format_percent,
        "duration": filters.format_duration,
        "moment": filters.format_moment,
        "wire": filters.format_wire,
        "spark": filters.spark_points,
        "ago": ago,
        "until": until,
    }
