"""What should really run: wanted, minus cuts, with refused versions replaced by the last one that Xray ran. Pure."""

from collections.abc import Collection, Iterable, Mapping
from hashlib import sha256

from xfleet_agent.state import Entities, Refused
from xfleet_contracts.apply import Degraded
from xfleet_contracts.desired_state import EntityKey
from xfleet_xraykit.lint import lint_state
from xfleet_xraykit.problems import EntityProblem
from xfleet_xraykit.state import typed_state

Refusals = Mapping[EntityKey, Refused]
MAX_LINT_ROUNDS = 5


def client_of(key: EntityKey) -> int | None:
    """The client's ref in a client entity's id, or None for an id of another form."""
    text = key.id.partition(".")[0]
    return int(text) if text.isascii() and text.isdigit() else None


def without_cuts(entities: Entities, cut: Collection[int]) -> Entities:
    """The entities of everyone who is not cut."""
    if not cut:
        return dict(entities)
    return {key: body for key, body in entities.items() if key.kind != "client" or client_of(key) not in cut}


def effective(wanted: Entities, applied: Entities, refusals: Refusals, cut: Collection[int]) -> Entities:
    """What should run, as far as it is known to work. Clients of an absent inbound are left out."""
    bodies = without_cuts(wanted, cut)
    for key, refused in refusals.items():
        if key not in bodies or refused.digest != sha256(bodies[key]).hexdigest():
            continue
        previous = applied.get(key)
        if previous is None or previous == bodies[key]:
            del bodies[key]
        else:
            bodies[key] = previous
    absent = {key.id for key in wanted if key.kind == "inbound" and key not in bodies}
    if absent:
        bodies = {k: b for k, b in bodies.items() if k.kind != "client" or k.id.partition(".")[2] not in absent}
    return bodies


def refuse(bodies: Entities, problems: Iterable[EntityProblem]) -> dict[EntityKey, Refused]:
    """The refusals of these bodies, one per entity."""
    found: dict[EntityKey, Refused] = {}
    for problem in problems:
        if problem.key in bodies and problem.key not in found:
            found[problem.key] = Refused(
                key=problem.key, digest=sha256(bodies[problem.key]).hexdigest(), path=problem.path, code=problem.code,
                reason=problem.reason,
            )  # fmt: skip
    return found


def refusals_stand(wanted: Entities, refusals: Refusals) -> bool:
    """Whether every refusal is still about what is wanted."""
    return all(key in wanted and each.digest == sha256(wanted[key]).hexdigest() for key, each in refusals.items())


def settle_by_lint(
    wanted: Entities, applied: Entities, refusals: Refusals, cut: Collection[int]
) -> tuple[Entities, dict[EntityKey, Refused]]:
    """What should run after our own lint had its say, and every refusal that still stands.

    What runs already is never refused by lint: it has proven itself, and a newer rule of ours must cut nobody.
    """
    standing = {
        key: each for key, each in refusals.items() if key in wanted and each.digest == sha256(wanted[key]).hexdigest()
    }
    bodies = effective(wanted, applied, standing, cut)
    for _ in range(MAX_LINT_ROUNDS):
        fresh = (p for p in lint_state(typed_state(bodies)) if p.key in bodies and bodies[p.key] != applied.get(p.key))
        found = refuse(bodies, fresh)
        if not found:
            break
        standing |= found
        bodies = effective(wanted, applied, standing, cut)
    return bodies, standing


def degraded_list(refusals: Refusals, bodies: Entities) -> tuple[Degraded, ...]:
    """The refusals as the controller is told, with what runs instead."""
    return tuple(refused.degraded(kept=key in bodies) for key, refused in sorted(refusals.items()))
