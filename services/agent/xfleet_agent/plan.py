"""Plan: which steps lead a running Xray to what is wanted. Pure: nothing here asks or changes anything."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from xfleet_contracts import codec
from xfleet_contracts.desired_state import EntityKey, SettingsBody
from xfleet_xraykit.accounts import Account
from xfleet_xraykit.protocols import find_protocol
from xfleet_xraykit.render import render_inbound, render_outbounds, render_rule
from xfleet_xraykit.state import State

REBUILD_ABOVE = 1000
"""More client changes than this on one inbound are quicker, and no less gentle, as one rebuild of the inbound."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What an Xray runs or should run, in a form that can be compared."""

    inbounds: Mapping[int, bytes] = field(default_factory=dict[int, bytes])
    """Ref to rendered JSON without clients; empty bytes: something unknown runs there."""
    users: Mapping[int, Mapping[str, Account]] = field(default_factory=dict[int, dict[str, Account]])
    """Ref to email to account."""
    outbounds: tuple[tuple[str, bytes], ...] = ()
    """(tag, rendered JSON), the default first."""
    rules: tuple[bytes, ...] = ()
    fixed: bytes = b""
    """What only a new process can change."""


@dataclass(frozen=True, slots=True)
class RemoveClient:
    """A client leaves an inbound; `cut` also ends new streams on connections it still has."""

    inbound: int
    email: str
    cut: bool


@dataclass(frozen=True, slots=True)
class RemoveInbound:
    """A port closes; open connections go on."""

    inbound: int


@dataclass(frozen=True, slots=True)
class RemoveOutbound:
    """An outbound goes."""

    tag: str


@dataclass(frozen=True, slots=True)
class AddOutbound:
    """An outbound comes."""

    tag: str


@dataclass(frozen=True, slots=True)
class SetRules:
    """All routing rules are replaced in one step."""


@dataclass(frozen=True, slots=True)
class AddInbound:
    """A port opens with all its clients."""

    inbound: int


@dataclass(frozen=True, slots=True)
class AddClient:
    """A client joins an inbound."""

    inbound: int
    email: str


@dataclass(frozen=True, slots=True)
class Replace:
    """A new Xray takes over from the old one; nothing else is in such a plan."""

    reason: str


Step = RemoveClient | RemoveInbound | RemoveOutbound | AddOutbound | SetRules | AddInbound | AddClient | Replace


def shape_of(state: State) -> Shape:
    """What an Xray that runs this state looks like."""
    users: dict[int, dict[str, Account]] = {}
    for ref, body in state.inbounds.items():
        protocol = find_protocol(body)
        clients = state.clients_of(ref)
        users[ref] = {email: protocol.account(client, body) for email, client in clients.items()} if protocol else {}
    return Shape(
        inbounds={ref: codec.canonical(render_inbound(body, {})) for ref, body in state.inbounds.items()},
        users=users,
        outbounds=tuple((str(each["tag"]), codec.canonical(each)) for each in render_outbounds(state.outbounds)),
        rules=tuple(codec.canonical(render_rule(tag, rule)) for tag, rule in state.rules),
        fixed=_fixed(state.settings, {name: each.certificate_pem for name, each in state.certificates.items()}),
    )


def config_digest(shape: Shape) -> str:
    """Tells one configuration, clients left out, from another."""
    parts = [sorted(shape.inbounds.items()), list(shape.outbounds), list(shape.rules), shape.fixed]
    return codec.sha256_hex(codec.canonical(parts))


def _fixed(settings: SettingsBody, certificates: Mapping[str, Any]) -> bytes:
    return codec.canonical([settings, certificates])


def plan(wanted: Shape, running: Shape) -> tuple[Step, ...]:
    """The steps from running to wanted: removals before additions, everything else left alone."""
    reason = _replace_reason(wanted, running)
    if reason:
        return (Replace(reason),)
    rebuilt = {ref for ref in wanted.inbounds if ref in running.inbounds and _must_rebuild(wanted, running, ref)}
    steps: list[Step] = []
    steps.extend(_client_removals(wanted, running))
    steps.extend(RemoveInbound(ref) for ref in sorted(running.inbounds) if ref not in wanted.inbounds or ref in rebuilt)
    steps.extend(_outbound_steps(wanted, running))
    if wanted.rules != running.rules:
        steps.append(SetRules())
    steps.extend(AddInbound(ref) for ref in sorted(wanted.inbounds) if ref not in running.inbounds or ref in rebuilt)
    for ref in sorted(wanted.inbounds):
        if ref in running.inbounds and ref not in rebuilt:
            steps.extend(_client_additions(wanted, running, ref))
    return tuple(step for step in steps if not (isinstance(step, RemoveClient) and not _worth(step, rebuilt, wanted)))


def _worth(step: RemoveClient, rebuilt: set[int], wanted: Shape) -> bool:
    """Whether a single removal does something that removing the whole inbound does not."""
    return step.cut or (step.inbound in wanted.inbounds and step.inbound not in rebuilt)


def _replace_reason(wanted: Shape, running: Shape) -> str:
    if wanted.fixed != running.fixed:
        return "settings"
    if [tag for tag, _ in wanted.outbounds[:1]] != [tag for tag, _ in running.outbounds[:1]]:
        return "default outbound"
    return ""


def _must_rebuild(wanted: Shape, running: Shape, ref: int) -> bool:
    if wanted.inbounds[ref] != running.inbounds[ref]:
        return True
    want, have = wanted.users.get(ref, {}), running.users.get(ref, {})
    changes_count = sum(1 for email in have if email not in want)
    changes_count += sum(1 for email, account in want.items() if email not in have or not account.covers(have[email]))
    return changes_count > REBUILD_ABOVE


def _client_removals(wanted: Shape, running: Shape) -> Iterator[Step]:
    for ref in sorted(running.users):
        want, have = wanted.users.get(ref, {}), running.users[ref]
        for email in sorted(have):
            if email not in want:
                yield RemoveClient(ref, email, cut=True)
            elif not want[email].covers(have[email]):
                yield RemoveClient(ref, email, cut=False)


def _client_additions(wanted: Shape, running: Shape, ref: int) -> Iterator[Step]:
    have = running.users.get(ref, {})
    for email, account in sorted(wanted.users.get(ref, {}).items()):
        if email not in have or not account.covers(have[email]):
            yield AddClient(ref, email)


def _outbound_steps(wanted: Shape, running: Shape) -> Iterator[Step]:
    """Changed ones go and come back at once: a default that is gone is taken over by the next one that comes."""
    want, have = dict(wanted.outbounds), dict(running.outbounds)
    for tag, body in wanted.outbounds:
        if tag in have and have[tag] != body:
            yield RemoveOutbound(tag)
            yield AddOutbound(tag)
    for tag in have:
        if tag not in want:
            yield RemoveOutbound(tag)
    for tag in want:
        if tag not in have:
            yield AddOutbound(tag)


def after(running: Shape, wanted: Shape, steps: tuple[Step, ...], refused: Collection[EntityKey]) -> Shape:
    """What runs once the steps were carried out, except for what was refused; users have still to be asked for."""
    inbounds, want = dict(running.inbounds), dict(wanted.outbounds)
    outbounds = [tag for tag, _ in running.outbounds]
    bodies = dict(running.outbounds)
    rules = running.rules
    for step in steps:
        match step:
            case RemoveInbound(ref):
                inbounds.pop(ref, None)
            case AddInbound(ref) if EntityKey(kind="inbound", id=str(ref)) not in refused:
                inbounds[ref] = wanted.inbounds[ref]
            case RemoveOutbound(tag):
                outbounds.remove(tag)
            case AddOutbound(tag) if EntityKey(kind="outbound", id=tag) not in refused:
                outbounds.append(tag)
                bodies[tag] = want[tag]
            case SetRules() if not any(key.kind == "rule" for key in refused):
                rules = wanted.rules
            case _:
                pass
    order = {tag: place for place, (tag, _) in enumerate(wanted.outbounds)}
    outbounds.sort(key=lambda tag: order.get(tag, len(order)))
    return Shape(
        inbounds=inbounds,
        users={ref: users for ref, users in running.users.items() if ref in inbounds},
        outbounds=tuple((tag, bodies[tag]) for tag in outbounds),
        rules=rules,
        fixed=running.fixed,
    )
