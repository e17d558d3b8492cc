"""`checks.run`: tries from this machine what an operator wants to know before clients do."""

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

import msgspec

from xfleet_agent.checks.outcome import Outcome, timed
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.care import CHECKS_RUN, CheckResult, ChecksDone, ChecksRun
from xfleet_contracts.desired_state import InboundBody
from xfleet_contracts.errors import MessageMalformed

NAME = CHECKS_RUN
MAX_TARGETS = 8
MAX_PORTS = 32
MAX_TARGET_LENGTH = 262


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(body: msgspec.Raw) -> ChecksDone:
        asked = codec.decode(bytes(body), ChecksRun)
        if len(asked.tls_targets) > MAX_TARGETS or len(asked.free_ports) > MAX_PORTS:
            raise MessageMalformed(f"At most {MAX_TARGETS} targets and {MAX_PORTS} ports are checked at once.")
        if any(len(target) > MAX_TARGET_LENGTH for target in asked.tls_targets):
            raise MessageMalformed("A target is host:port.", field="tls_targets")
        if not asked.tls_targets and not asked.free_ports:
            from xfleet_agent.checks.machine import check_machine  # noqa: PLC0415  needed by this verb only

            return ChecksDone(results=tuple(await check_machine(parts)))
        return ChecksDone(results=tuple(await asyncio.gather(*_outside(parts, asked))))

    return Verb(handler=handle, at_once=2)


def _outside(parts: Parts, asked: ChecksRun) -> Sequence[Coroutine[Any, Any, CheckResult]]:
    from xfleet_agent.aside import aside  # noqa: PLC0415  needed by this verb only
    from xfleet_agent.checks.outside import check_port, check_tls  # noqa: PLC0415  as above

    inbounds = _inbounds_by_port(parts)

    async def port(number: int) -> Outcome:
        return await aside(check_port, number, inbounds)

    found = [timed(f"tls {target}", check_tls(target)) for target in dict.fromkeys(asked.tls_targets)]
    return found + [timed(f"port {number}", port(number)) for number in dict.fromkeys(asked.free_ports)]


def _inbounds_by_port(parts: Parts) -> Mapping[int, str]:
    bodies = [body for key, body in parts.store.applied.items() if key.kind == "inbound"]
    return {each.port: str(each.ref) for body in bodies for each in [msgspec.json.decode(body, type=InboundBody)]}
