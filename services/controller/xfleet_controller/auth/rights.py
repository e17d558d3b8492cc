"""Who may do what: one table of roles, one function asked by every service before it acts."""

from typing import Any

import msgspec

from xfleet_contracts.errors import Refusal

OWNER = "owner"

ROLES: dict[str, frozenset[str]] = {
    OWNER: frozenset({"*"}),
    "operator": frozenset(
        {
            "servers.*",
            "inbounds.*",
            "clients.*",
            "tasks.read",
            "traffic.read",
            "logs.read",
            "account.*",
            "bot.*",
            "fleet.enroll",
            "fleet.rollouts.read",
            "fleet.rollouts.write",
        }
    ),
    "support": frozenset(
        {
            "servers.read",
            "servers.order.read",
            "inbounds.read",
            "clients.*",
            "tasks.read",
            "traffic.read",
            "account.*",
            "bot.*",
        }
    ),
    "read-only": frozenset(
        {"servers.read", "inbounds.read", "clients.read", "tasks.read", "traffic.read", "account.*", "bot.*"}
    ),
}
"""Actions per role; `servers.*` means all about servers, `*` everything."""


class Forbidden(Refusal):
    """Signed in, but not allowed to do this."""

    code = "forbidden"
    status = 403
    message = "Your role does not allow this."


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: an admin by browser, token or bot, or the system itself."""

    name: str
    role: str
    admin_id: int | None = None
    channel: str = "admin"
    """`admin`, `bot` or `system`."""
    address: str = ""
    session: str = ""
    """SHA-256 of the session's token; empty outside the web."""
    csrf_token: str = ""
    """What forms of this session carry; empty for bearers."""

    @property
    def label(self) -> str:
        """As audit rows and tasks name the actor."""
        return "system" if self.channel == "system" else f"{self.channel}:{self.name}"


SYSTEM = Actor(name="system", role=OWNER, channel="system")
"""The controller acting by itself."""


def authorize(actor: Actor, action: str, thing: Any = None) -> None:  # noqa: ARG001  rights per object come later
    """Returns when the actor may do this to that thing; raises `Forbidden` otherwise."""
    granted = ROLES.get(actor.role, frozenset[str]())
    subject = action.partition(".")[0]
    if not granted & {"*", action, f"{subject}.*"}:
        raise Forbidden(action=action)
