"""The sign-in page."""

import msgspec

from xfleet_controller.panel.views import FormView


class LoginView(msgspec.Struct, frozen=True, kw_only=True):
    """What the sign-in form shows."""

    form: FormView
    next_path: str = ""
    """Where to go after signing in: a path below the base path."""
    challenge: str = ""
    """The note of the first step, when a code is all that is missing."""
