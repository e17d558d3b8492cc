"""Where the panel's pages are plugged into the web application."""

from collections.abc import Sequence
from typing import NamedTuple

from litestar.types import ControllerRouterHandler

from xfleet_controller.context import Context
from xfleet_controller.edge import HtmlError


class Pages(NamedTuple):
    """The panel's doors and its error page."""

    handlers: Sequence[ControllerRouterHandler] = ()
    html_error: HtmlError | None = None


def panel_pages(context: Context) -> Pages:  # noqa: ARG001  the pages' templates need it
    """The panel's doors."""
    return Pages()
