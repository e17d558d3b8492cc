"""Who may do what: one table of actions, one of roles, one function asked by every service before it acts."""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from xfleet_contracts.errors import Refusal

OWNER = "owner"

ACTIONS: dict[str, str] = {
    "servers.read": "See servers, their figures and their history",
    "servers.write": "Add, edit, drain and delete servers",
    "servers.order.read": "Ask servers how they are",
    "servers.order.write": "Order changes from servers, such as a restart",
    "servers.order.heavy": "Order installations and upgrades",
    "inbounds.read": "See inbounds, without their keys",
    "inbounds.write": "Change inbounds and see their keys",
    "clients.read": "See clients and what they used",
    "clients.links": "See the links and subscriptions of clients",
    "clients.write": "Add, change and delete clients",
    "tasks.read": "See what was ordered and what became of it",
    "traffic.read": "See traffic",
    "logs.read": "Read the logs of servers",
    "fleet.read": "See certificates, rollouts and backups",
    "fleet.certs": "Check and renew certificates",
    "fleet.enroll": "Make the lines by which machines join",
    "fleet.revoke": "Cut off machines",
    "fleet.rollouts": "Upgrade servers in waves",
    "fleet.backup": "Take and fetch backups, which hold every secret",
    "settings.read": "See the installation's settings",
    "settings.write": "Change the installation's settings",
    "audit.read": "Read who did what",
    "admins.read": "See admins",
    "admins.write": "Add, change and delete admins",
    "tokens.read": "See API tokens",
    "tokens.write": "Make and revoke API tokens",
    "account.read": "See the own account",
    "account.write": "Change the own account",
    "bot.read": "See bound Telegram accounts",
    "bot.write": "Bind Telegram accounts",
    "gallery.read": "Look at made-up pages",
}
"""Every action there is, as people read it."""

_OWN = frozenset({"account.*", "bot.*", "tokens.*"})
_LOOKING = _OWN | {"servers.read", "inbounds.read", "clients.read", "tasks.read", "traffic.read"}
ROLES: dict[str, frozenset[str]] = {
    OWNER: frozenset({"*"}),
    "operator": _LOOKING
    | {
        "servers.*", "inbounds.*", "clients.*", "tasks.*", "traffic.*", "logs.*", "audit.read", "settings.read",
        "fleet.read", "fleet.certs", "fleet.enroll", "fleet.revoke", "fleet.rollouts",
    },
    "support": _LOOKING | {"servers.order.read", "clients.*"},
    "read-only": _LOOKING,
}  # fmt: skip
"""Actions per role; `servers.*` means all about servers, `*` everything."""

NEVER_BY_TOKEN = frozenset({"account", "bot"})
"""Areas no API token reaches: a bot code would lend its bearer all rights of the admin."""
BY_NAME_ONLY = frozenset({"tokens", "admins"})
"""Areas an API token reaches only when an owner's token names them; `*` does not."""


class Forbidden(Refusal):
    """Signed in, but not allowed to do this."""

    code = "forbidden"
    status = 403
    message = "Your role does not allow this."


class OutOfScope(Forbidden):
    """The role would allow it, the API token does not."""

    message = "This API token does not allow this."


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks: an admin by browser, token or bot, or the system itself."""

    name: str
    role: str
    admin_id: int | None = None
    channel: str = "admin"
    """`admin`, `token`, `bot` or `system`."""
    address: str = ""
    session: str = ""
    """SHA-256 of the session's token; empty outside the web."""
    csrf_token: str = ""
    """What forms of this session carry; empty for bearers."""
    token_id: int | None = None
    token_name: str = ""
    scopes: frozenset[str] | None = None
    """What an API token is bound to, within the role; None: all of the role."""

    @property
    def label(self) -> str:
        """As audit rows and tasks name the actor."""
        if self.channel == "system":
            return "system"
        return f"{self.channel}:{self.name}{f'/{self.token_name}' if self.token_name else ''}"[:100]


SYSTEM = Actor(name="system", role=OWNER, channel="system")
"""The controller acting by itself."""


def grants(patterns: Collection[str], action: str) -> bool:
    """Whether one of the patterns covers the action: itself, an area of it such as `servers.order.*`, or `*`."""
    parts = action.split(".")
    areas = (f"{'.'.join(parts[:count])}.*" for count in range(1, len(parts)))
    return any(each in patterns for each in ("*", action, *areas))


def may(actor: Actor, action: str) -> bool:
    """Whether the actor's role, and where there is one its token, allows the action."""
    return grants(ROLES.get(actor.role, frozenset[str]()), action) and _within_scopes(actor, action)


def authorize(actor: Actor, action: str, thing: Any = None) -> None:  # noqa: ARG001  rights per object come later
    """Returns when the actor may do this to that thing; raises `Forbidden` otherwise."""
    if not grants(ROLES.get(actor.role, frozenset[str]()), action):
        raise Forbidden(action=action)
    if not _within_scopes(actor, action):
        raise OutOfScope(action=action)


def actions_of(pattern: str) -> tuple[str, ...]:
    """The known actions a pattern covers; none for a pattern that means nothing."""
    return tuple(action for action in ACTIONS if grants((pattern,), action))


def not_allowed(actor: Actor, scopes: Iterable[str]) -> tuple[str, ...]:
    """What of these scopes the actor may not give to a token; `*` gives only what there is to give."""
    asked = {action for scope in scopes if scope != "*" for action in actions_of(scope)}
    refused = {action for action in asked if not may(actor, action) or not _is_token_action(actor, action)}
    if "*" in scopes and actor.scopes is not None and "*" not in actor.scopes:
        refused.add("*")
    return tuple(sorted(refused))


def _within_scopes(actor: Actor, action: str) -> bool:
    if actor.scopes is None:
        return True
    if not _is_token_action(actor, action):
        return False
    named = actor.scopes - {"*"} if _area(action) in BY_NAME_ONLY else actor.scopes
    return grants(named, action)


def _is_token_action(actor: Actor, action: str) -> bool:
    area = _area(action)
    return area not in NEVER_BY_TOKEN and (area not in BY_NAME_ONLY or actor.role == OWNER)


def _area(action: str) -> str:
    return action.partition(".")[0]
