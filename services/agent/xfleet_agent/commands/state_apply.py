"""`state.apply`: takes the wanted state (a difference or a snapshot), stores it, and brings Xray in line."""

import time

import msgspec

from xfleet_agent.commands.serving import XrayNotRunning, serving
from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_agent.state import Entities
from xfleet_contracts import codec
from xfleet_contracts.apply import APPLY, BASE_MISMATCH, ApplyOrder, ApplyReport
from xfleet_contracts.desired_state import Difference, SnapshotChunk, SnapshotManifest, digest_of
from xfleet_contracts.errors import MessageMalformed, Refusal
from xfleet_runtime.broker import BrokerOutage
from xfleet_xraykit.errors import XrayDown, XrayHung

NAME = APPLY


class BaseMismatch(Refusal):
    """A difference from a point where this agent is not."""

    code = BASE_MISMATCH
    status = 409
    message = "The difference starts from another state than this agent has."


class DigestMismatch(Refusal):
    """Entities that do not add up to the digest they should."""

    code = "digest_mismatch"
    status = 422
    message = "The entities do not add up to the digest of the state; a snapshot is needed."


class StateUnreachable(Refusal):
    """The controller's answer with a part of the snapshot did not come, or cannot be trusted."""

    code = "state_unreachable"
    status = 503
    message = "A part of the snapshot could not be fetched; send the order again."


def verb(parts: Parts) -> Verb:
    """How it is carried out."""

    async def handle(body: msgspec.Raw) -> ApplyReport:
        started = time.monotonic()
        order = codec.decode(bytes(body), ApplyOrder)
        if order.difference is not None and order.snapshot is None:
            await _take_difference(parts, order.difference)
        elif order.snapshot is not None and order.difference is None:
            await _take_snapshot(parts, order.snapshot)
        else:
            raise MessageMalformed("An apply order holds exactly one of difference and snapshot.")
        serving(parts)
        try:
            outcome = await parts.applier.converge()
        except (XrayDown, XrayHung) as error:
            parts.applier.wake.set()
            raise XrayNotRunning(reason=str(error)) from error
        finally:
            parts.beat.set()
        return ApplyReport(
            point=parts.store.wanted_point,
            applied_revision=parts.store.applied_point.revision,
            degraded=parts.applier.degraded,
            steps_count=outcome.steps_count,
            restarted=outcome.replaced,
            took_ms=int((time.monotonic() - started) * 1000),
        )

    return Verb(handler=handle, at_once=1)


async def _take_difference(parts: Parts, difference: Difference) -> None:
    here = parts.store.wanted_point
    if here == difference.target:
        return
    if here != difference.base:
        raise BaseMismatch(revision=here.revision, digest=here.digest)
    put = {entity.key: bytes(entity.body) for entity in difference.put}
    if not await parts.worker.run(parts.store.change_wanted, difference.target, put, difference.remove):
        raise DigestMismatch(revision=here.revision, digest=here.digest)


async def _take_snapshot(parts: Parts, manifest: SnapshotManifest) -> None:
    if parts.store.wanted_point == manifest.target:
        return
    entities: Entities = {}
    for name in manifest.chunks:
        try:
            data = await parts.calls.state_chunk(manifest.target.revision, name)
        except BrokerOutage as outage:
            raise StateUnreachable(reason=str(outage)) from outage
        for entity in codec.decode(data, SnapshotChunk).entities:
            entities[entity.key] = bytes(entity.body)
    if await parts.worker.run(digest_of, entities) != manifest.target.digest:
        here = parts.store.wanted_point
        raise DigestMismatch(revision=here.revision, digest=here.digest)
    await parts.worker.run(parts.store.save_wanted, manifest.target, entities)
