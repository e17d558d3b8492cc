"""The verbs without an answer: receipts, forks, allowances, manifests, leases. The latest wins, a loss is harmless."""

from collections.abc import Awaitable, Callable

import msgspec

from xfleet_agent.desk import Verb
from xfleet_agent.parts import Parts
from xfleet_contracts import codec
from xfleet_contracts.allowance import ALLOWANCE, Allowances
from xfleet_contracts.enrollment import SignedManifest
from xfleet_contracts.logs import LOG_LEASE, LogLease
from xfleet_contracts.receipt import FORK, RECEIPT, Fork, Receipt

MANIFEST = "manifest"


def verbs(parts: Parts) -> dict[str, Verb]:
    """Name to how it is carried out."""

    async def on_receipt(body: msgspec.Raw) -> None:
        await parts.courier.on_receipt(codec.decode(bytes(body), Receipt))

    async def on_fork(body: msgspec.Raw) -> None:
        await parts.courier.on_fork(codec.decode(bytes(body), Fork))

    async def on_allowance(body: msgspec.Raw) -> None:
        await parts.governor.on_allowances(codec.decode(bytes(body), Allowances))

    async def on_manifest(body: msgspec.Raw) -> None:
        before = parts.identity.credentials()
        parts.identity.accept_manifest(codec.decode(bytes(body), SignedManifest))
        if parts.identity.credentials() != before:
            await parts.link.replace_credentials(parts.identity.credentials())
        parts.beat.set()

    async def on_lease(body: msgspec.Raw) -> None:
        await parts.leases.take(codec.decode(bytes(body), LogLease))

    handlers: dict[str, Callable[[msgspec.Raw], Awaitable[None]]] = {
        RECEIPT: on_receipt,
        FORK: on_fork,
        ALLOWANCE: on_allowance,
        MANIFEST: on_manifest,
        LOG_LEASE: on_lease,
    }
    return {name: Verb(handler=handler) for name, handler in handlers.items()}
