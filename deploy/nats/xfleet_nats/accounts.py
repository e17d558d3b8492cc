"""The tokens of the operator and of the two accounts, and the rule by which revocations are never lost.

A broker accepts an older account token and thereby undoes a revocation (measured). So whoever builds one does it from
the union of all it knows and all that the nodes hold, with a serial and an issue time above any it has seen.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

import msgspec

from xfleet_nats.roles import ROLES
from xfleet_runtime.keys import jwt
from xfleet_runtime.keys.jwt import Scope
from xfleet_runtime.keys.nkeys import KeyPair

LONGEST_LIFETIME = timedelta(days=366)
"""No user token lives longer, so that a revocation need not be kept for ever."""
PRUNE_AFTER = LONGEST_LIFETIME + timedelta(days=30)
"""The rest is for clocks that disagree."""


class AccountState(msgspec.Struct, frozen=True, kw_only=True):
    """What an account token says that changes: serial, issue time and revocations."""

    serial: int
    issued_at: int
    """Unix seconds."""
    revocations: dict[str, int] = {}
    """User nkey to the issue time, in Unix seconds, up to which its tokens are dead."""


def read_account(token: str) -> AccountState:
    """What an account token in a broker's hands says. Raises `BadJwtError` for anything else."""
    claims = jwt.decode(token)
    return AccountState(serial=jwt.serial_of(claims), issued_at=claims.iat, revocations=jwt.revocations_of(claims))


def union_of_revocations(*known: Mapping[str, int]) -> dict[str, int]:
    """Every key any of them revokes, each up to the latest moment named."""
    union: dict[str, int] = {}
    for revocations in known:
        for public, revoked_at in revocations.items():
            union[public] = max(revoked_at, union.get(public, 0))
    return union


def plan_account(meant: Mapping[str, int], held: Iterable[AccountState], *, serial: int, now: datetime) -> AccountState:
    """The next state of an account: `meant` and all that nodes hold, above `serial` and above every node's issue time.

    `meant` is the revocations table. What was revoked longer ago than a token can live is left out: every token it
    could still be about has expired.
    """
    forgotten = int((now - PRUNE_AFTER).timestamp())
    states = tuple(held)
    highest_serial = max((state.serial for state in states), default=0)
    revocations = union_of_revocations(meant, *(state.revocations for state in states))
    latest_issue = max((state.issued_at for state in states), default=0)
    return AccountState(
        serial=max(serial, highest_serial) + 1,
        issued_at=max(int(now.timestamp()), latest_issue + 1),
        revocations={public: moment for public, moment in revocations.items() if moment > forgotten},
    )


def scopes_of(account: str, role_seeds: Mapping[str, str]) -> tuple[Scope, ...]:
    """The scoped signing keys of an account, one per role that has a seed."""
    return tuple(
        Scope(role=role.name, public=KeyPair.from_seed(role_seeds[role.name]).public, template=role.template)
        for role in ROLES.values()
        if role.account == account and role.name in role_seeds
    )
