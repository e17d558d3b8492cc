"""Who gets through which door: written down by hand, never read from the code it judges.

Whoever adds a route adds a line here: an API route under the action its service asks for, a page under the roles that
may open it. `tests/integration/security/test_walk.py` fails for a route that is missing, and for one that is gone.
"""

from typing import NamedTuple

OWNER, OPERATOR, SUPPORT, READ_ONLY = "owner", "operator", "support", "read-only"
ROLES = (OWNER, OPERATOR, SUPPORT, READ_ONLY)
ALL = frozenset(ROLES)
KEEPERS = frozenset({OWNER, OPERATOR, SUPPORT})
OPERATORS = frozenset({OWNER, OPERATOR})
OWNERS = frozenset({OWNER})

ANY_TOKEN, NO_TOKEN = "any", "none"


class Door(NamedTuple):
    """Who gets through: roles by session, and the action a token must be scoped to."""

    roles: frozenset[str]
    scope: str = NO_TOKEN


API: tuple[tuple[str, frozenset[str], str], ...] = (
    (ANY_TOKEN, ALL, """
        GET /session
        GET /openapi.json
        GET /schema/openapi.json
        GET /schema
        GET /schema/{path:str}
     """),
    (NO_TOKEN, ALL, """
        DELETE /session
        POST /account/password
        GET /account/sessions
        DELETE /account/sessions
        DELETE /account/sessions/{session_id:str}
        GET /account/totp
        POST /account/totp
        POST /account/totp/confirm
        POST /account/totp/disable
        POST /account/recovery-codes
        POST /bot/codes
        GET /bot/bindings
        DELETE /bot/bindings/{telegram_id:int}
     """),
    ("servers.read", ALL, """
        GET /fleet/agent-release
        GET /servers
        GET /servers/choices
        GET /servers/{server_id:int}
        GET /servers/{server_id:int}/diff
        GET /servers/{server_id:int}/history
        GET /servers/{server_id:int}/history/{version:int}/changes
        GET /servers/{server_id:int}/history/{version:int}/revert
        GET /servers/{server_id:int}/strays
        GET /servers/{server_id:int}/identities
        GET /fleet/broker-addresses
        POST /fleet/reachability
     """),
    ("servers.order.read", KEEPERS, """
        GET /servers/{server_id:int}/certificates
        GET /servers/{server_id:int}/certificates/{name:str}
        GET /servers/{server_id:int}/counters
        GET /servers/{server_id:int}/health
        GET /servers/{server_id:int}/info
        GET /servers/{server_id:int}/online
        GET /servers/{server_id:int}/state
        GET /servers/{server_id:int}/stats
        GET /servers/{server_id:int}/xray
        GET /servers/{server_id:int}/xray/config
        POST /servers/{server_id:int}/checks
     """),
    ("servers.order.write", OPERATORS, """
        POST /servers/{server_id:int}/certificates
        POST /servers/{server_id:int}/xray/restart
        POST /servers/{server_id:int}/xray/start
        POST /servers/{server_id:int}/xray/stop
     """),
    ("servers.order.heavy", OPERATORS, """
        POST /servers/{server_id:int}/agent/update
        POST /servers/{server_id:int}/backup
        POST /servers/{server_id:int}/geofiles
        POST /servers/{server_id:int}/restore
        POST /servers/{server_id:int}/xray/install
     """),
    ("logs.read", OPERATORS, """
        GET /servers/{server_id:int}/logs
        GET /servers/{server_id:int}/logs/live
     """),
    ("fleet.enroll", OPERATORS, """
        POST /servers/{server_id:int}/join-line
        PUT /fleet/broker-addresses
     """),
    ("fleet.revoke", OPERATORS, """
        POST /servers/{server_id:int}/revoke
        POST /servers/{server_id:int}/lift-suspension
     """),
    ("tasks.read+servers.order.write", OPERATORS, """
        POST /tasks/{task_id:int}/cancel
     """),
    ("fleet.read", OPERATORS, """
        GET /rollouts
        GET /rollouts/{rollout_id:int}
     """),
    ("fleet.rollouts", OPERATORS, """
        POST /rollouts
        POST /rollouts/{rollout_id:int}/cancel
        POST /rollouts/{rollout_id:int}/pause
        POST /rollouts/{rollout_id:int}/resume
     """),
    ("fleet.backup", OWNERS, """
        GET /backups
        POST /backups
        GET /backups/{name:str}/file
        DELETE /backups/{name:str}
        PUT /backups/schedule
     """),
    ("servers.write+inbounds.write", OPERATORS, """
        POST /servers/{server_id:int}/history/{version:int}/revert
     """),
    ("servers.write+clients.write", OPERATORS, """
        POST /servers/{server_id:int}/strays/adopt
     """),
    ("servers.write", OPERATORS, """
        POST /servers/{server_id:int}/strays/discard
        POST /servers
        PATCH /servers/{server_id:int}
        DELETE /servers/{server_id:int}
        POST /servers/{server_id:int}/enrollment-tokens
     """),
    ("inbounds.read", ALL, """
        GET /inbounds
        GET /inbounds/{inbound_id:int}
     """),
    ("inbounds.write", OPERATORS, """
        POST /inbounds
        PATCH /inbounds/{inbound_id:int}
        DELETE /inbounds/{inbound_id:int}
     """),
    ("clients.read", ALL, """
        GET /clients
        GET /clients/{client_id:int}
     """),
    ("clients.write", KEEPERS, """
        POST /clients
        PATCH /clients/{client_id:int}
        DELETE /clients/{client_id:int}
     """),
    ("traffic.read", ALL, """
        GET /clients/{client_id:int}/traffic
        GET /traffic/gaps
        GET /traffic
        GET /traffic/gaps
     """),
    ("tasks.read", ALL, """
        GET /tasks
        GET /tasks/{task_id:int}
     """),
    ("tokens.read", ALL, """
        GET /tokens
     """),
    ("tokens.write", ALL, """
        POST /tokens
        DELETE /tokens/{token_id:int}
     """),
    ("admins.read", OWNERS, """
        GET /admins
        GET /admins/{admin_id:int}
     """),
    ("admins.write", OWNERS, """
        POST /admins
        PATCH /admins/{admin_id:int}
        DELETE /admins/{admin_id:int}
        POST /admins/{admin_id:int}/password
        DELETE /admins/{admin_id:int}/totp
     """),
    ("tokens.read+admins.read", OWNERS, """
        GET /admins/{admin_id:int}/tokens
     """),
    ("fleet.backup", OWNERS, """
        GET /backups
        POST /backups
        PUT /backups/schedule
        GET /backups/{name:str}/file
        DELETE /backups/{name:str}
     """),
    ("settings.read", OPERATORS, """
        GET /settings/retention
     """),
    ("settings.write", OWNERS, """
        PUT /settings/retention
     """),
    ("audit.read", OPERATORS, """
        GET /audit
        GET /audit/export/{form:str}
     """),
)  # fmt: skip
"""Below `/api/v1`: the action a token needs (`a+b`: both), the roles that may, the routes."""

PAGES: tuple[tuple[frozenset[str], str], ...] = (
    (ALL, """
        GET /
        GET /traffic
        GET /live
        POST /logout
        GET /servers
        GET /servers/{server_id:int}
        GET /servers/{server_id:int}/identities
        GET /servers/{server_id:int}/orders
        GET /inbounds
        GET /clients
        GET /clients/{client_id:int}
        GET /servers/{server_id:int}/history
        GET /servers/{server_id:int}/history/{version:int}
        GET /tasks
        GET /tasks/{task_id:int}
        GET /settings
        POST /settings/password
        POST /settings/bot-code
        POST /settings/bot/{telegram_id:int}/unbind
        POST /settings/totp
        POST /settings/totp/confirm
        POST /settings/totp/disable
        POST /settings/recovery-codes
        POST /settings/sessions/end
        POST /settings/sessions/{session_id:str}/end
        GET /settings/tokens
        GET /settings/tokens/new
        POST /settings/tokens/new
        POST /settings/tokens/{token_id:int}/revoke
     """),
    (KEEPERS, """
        GET /servers/{server_id:int}/orders/certificates
        GET /servers/{server_id:int}/orders/checks
        POST /servers/{server_id:int}/orders/checks
        GET /servers/{server_id:int}/orders/config
        GET /clients/new
        POST /clients/new
        GET /clients/{client_id:int}/edit
        POST /clients/{client_id:int}/edit
        POST /clients/{client_id:int}/enable
        POST /clients/{client_id:int}/disable
        GET /clients/{client_id:int}/delete
        POST /clients/{client_id:int}/delete
     """),
    (OPERATORS, """
        GET /servers/new
        POST /servers/new
        GET /servers/{server_id:int}/logs
        GET /servers/{server_id:int}/logs/live
        GET /servers/{server_id:int}/orders/geofiles
        POST /servers/{server_id:int}/orders/geofiles
        GET /servers/{server_id:int}/orders/install
        POST /servers/{server_id:int}/orders/install
        GET /servers/{server_id:int}/orders/restore
        POST /servers/{server_id:int}/orders/restore
        POST /servers/{server_id:int}/orders/backup
        GET /servers/{server_id:int}/orders/stop
        POST /servers/{server_id:int}/orders/stop
        POST /servers/{server_id:int}/orders/start
        POST /servers/{server_id:int}/orders/restart
        POST /servers/{server_id:int}/orders/certificates
        POST /tasks/{task_id:int}/cancel
        GET /rollouts
        GET /rollouts/new
        POST /rollouts/new
        GET /rollouts/{rollout_id:int}
        POST /rollouts/{rollout_id:int}/pause
        POST /rollouts/{rollout_id:int}/resume
        POST /rollouts/{rollout_id:int}/cancel
        GET /servers/{server_id:int}/edit
        POST /servers/{server_id:int}/edit
        POST /servers/{server_id:int}/enable
        POST /servers/{server_id:int}/disable
        POST /servers/{server_id:int}/mode
        GET /servers/{server_id:int}/join
        POST /servers/{server_id:int}/join
        POST /servers/{server_id:int}/join/broker
        GET /servers/{server_id:int}/history/{version:int}/revert
        POST /servers/{server_id:int}/history/{version:int}/revert
        POST /servers/{server_id:int}/strays
        GET /servers/{server_id:int}/replace
        GET /servers/{server_id:int}/delete
        POST /servers/{server_id:int}/delete
        POST /servers/{server_id:int}/revoke
        POST /servers/{server_id:int}/lift-suspension
        GET /inbounds/new
        POST /inbounds/new
        GET /inbounds/{inbound_id:int}/edit
        POST /inbounds/{inbound_id:int}/edit
        POST /inbounds/{inbound_id:int}/enable
        POST /inbounds/{inbound_id:int}/disable
        GET /inbounds/{inbound_id:int}/delete
        POST /inbounds/{inbound_id:int}/delete
        GET /settings/audit
        GET /settings/audit/export/{form:str}
     """),
    (OWNERS, """
        GET /gallery
        GET /gallery/{name:str}
        GET /settings/admins
        GET /settings/admins/new
        POST /settings/admins/new
        GET /settings/admins/{admin_id:int}/edit
        POST /settings/admins/{admin_id:int}/edit
        GET /settings/admins/{admin_id:int}/password
        POST /settings/admins/{admin_id:int}/password
        POST /settings/admins/{admin_id:int}/totp
        GET /settings/admins/{admin_id:int}/delete
        POST /settings/admins/{admin_id:int}/delete
        GET /settings/admins/{admin_id:int}/tokens
        GET /settings/backups
        POST /settings/backups
        POST /settings/backups/schedule
        POST /settings/backups/retention
        GET /settings/backups/{name:str}/file
        GET /settings/backups/{name:str}/delete
        POST /settings/backups/{name:str}/delete
     """),
)  # fmt: skip
"""For browsers with a session; no API token opens them."""

OPEN = """
    POST /api/v1/session
    POST /api/v1/invites
    GET /login
    POST /login
    POST /login/code
    GET /invite/{token:str}
    POST /invite
    GET /sub/{sub_id:str}
    HEAD /sub/{sub_id:str}
    GET /install/agent.sh
    GET /install/{sha256:str}/{name:str}
    GET /healthz
    GET /readyz
    GET /static/{digest:str}/{name:path}
"""
"""For everybody: each guards itself, by a password, by a secret in the address, or by having nothing to tell."""

ELSEWHERE = frozenset({"GET /metrics", "POST /agent/v1/renew"})
"""Guarded by address or a token of its own (test_edge.py), and by the keys of agents (test_return.py)."""

CONTROLS: dict[str, tuple[str, frozenset[str], dict[str, object]]] = {
    "whoami": (ANY_TOKEN, ALL, {}),
    "status": ("servers.read", ALL, {}),
    "servers": ("servers.read", ALL, {}),
    "diff": ("servers.read", ALL, {"server": "local"}),
    "mode": ("servers.write", OPERATORS, {"server": "local", "mode": "active"}),
    "tasks": ("tasks.read", ALL, {}),
    "task": ("tasks.read", ALL, {"task_id": 999999}),
    "order": ("servers.order.write", OPERATORS, {"server": "local", "id": "walk", "verb": "xray.restart"}),
    "revoke": ("fleet.revoke", OPERATORS, {"server": "local"}),
    "enroll": ("fleet.enroll", OPERATORS, {"server": "local"}),
    "probe": ("fleet.certs", OPERATORS, {}),
}
"""Methods of `fleet.ctl`: the action a token needs, the roles that may, and what a request says beside who asks."""

OPEN_CONTROLS = frozenset({"bind"})
"""For the bot on behalf of who holds a one-time code."""


def guarded() -> dict[str, Door]:
    """Every door that must know who comes, by method and path."""
    found: dict[str, Door] = {}
    for scope, roles, routes in API:
        for method, path in map(str.split, _lines(routes)):
            found[f"{method} /api/v1{path}"] = Door(roles, scope)
    for roles, routes in PAGES:
        found |= {route: Door(roles) for route in _lines(routes)}
    return found


def open_to_all() -> set[str]:
    """Every door that lets strangers in."""
    return set(_lines(OPEN))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]
