"""A server's desired state with its bodies decoded."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import msgspec

from xfleet_contracts.desired_state import (
    BODY_OF,
    CertificateBody,
    ClientBody,
    EntityKey,
    InboundBody,
    OutboundBody,
    RuleBody,
    SettingsBody,
)
from xfleet_xraykit.counters import client_email
from xfleet_xraykit.problems import EntityProblem


@dataclass(slots=True)
class State:
    """Entities by what they belong to; the order of everything is stable."""

    inbounds: dict[int, InboundBody] = field(default_factory=dict[int, InboundBody])
    """By ref."""
    clients: dict[int, dict[str, ClientBody]] = field(default_factory=dict[int, dict[str, ClientBody]])
    """By the inbound's ref, then by email."""
    outbounds: list[OutboundBody] = field(default_factory=list[OutboundBody])
    """By position, the default one first."""
    rules: list[tuple[str, RuleBody]] = field(default_factory=list[tuple[str, RuleBody]])
    """With their tags, by position."""
    settings: SettingsBody = field(default_factory=SettingsBody)
    certificates: dict[str, CertificateBody] = field(default_factory=dict[str, CertificateBody])
    unreadable: list[EntityProblem] = field(default_factory=list[EntityProblem])
    """Entities whose bodies are not what their kind should be; they are left out of everything else."""

    def clients_of(self, inbound_ref: int) -> dict[str, ClientBody]:
        """Email to client, of one inbound."""
        return self.clients.get(inbound_ref, {})


def typed_state(bodies: Mapping[EntityKey, bytes]) -> State:
    """The entities decoded; kinds from a newer release are passed over."""
    state = State()
    for key in sorted(bodies):
        kind = BODY_OF.get(key.kind)
        if kind is None:
            continue
        try:
            body = msgspec.json.decode(bodies[key], type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            state.unreadable.append(EntityProblem(key, "", "unreadable", f"The entity could not be read: {error}"))
            continue
        name = _name_of(body) or key.id
        if key.id == name:
            _put(state, key, body)
        else:
            reason = f"The entity is kept as {key.id} but calls itself {name}."
            state.unreadable.append(EntityProblem(key, "", "bad_id", reason))
    state.outbounds.sort(key=lambda each: (each.position, each.tag))
    state.rules.sort(key=lambda each: (each[1].position, each[0]))
    return state


def _name_of(body: object) -> str | None:
    """The id that the body itself implies, where it does."""
    match body:
        case InboundBody():
            return str(body.ref)
        case ClientBody():
            return client_email(body.client, body.inbound)
        case OutboundBody():
            return body.tag
        case _:
            return None


def _put(state: State, key: EntityKey, body: object) -> None:
    match body:
        case InboundBody():
            state.inbounds[body.ref] = body
        case ClientBody():
            state.clients.setdefault(body.inbound, {})[key.id] = body
        case OutboundBody():
            state.outbounds.append(body)
        case RuleBody():
            state.rules.append((key.id, body))
        case SettingsBody():
            state.settings = body
        case CertificateBody():
            state.certificates[body.name] = body
        case _:
            pass
