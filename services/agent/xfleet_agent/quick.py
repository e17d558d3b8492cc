"""The quick path of an apply: a few clients come, go or change, and nothing else does.

Its cost follows the change and not the size of the server. Whatever it is not sure about (a refusal, a double
credential, an answer that does not fit) it leaves to the full convergence, which judges everything.
"""

from collections.abc import Mapping

import msgspec

from xfleet_agent.plan import AddClient, RemoveClient, Shape, Step
from xfleet_agent.processes import RunningXray
from xfleet_agent.state import Entities
from xfleet_agent.steps import Blocks, Execution
from xfleet_contracts.desired_state import ClientBody, EntityKey, InboundBody
from xfleet_xraykit.accounts import Account
from xfleet_xraykit.counters import client_email, inbound_tag
from xfleet_xraykit.errors import RuleNeedsRestart
from xfleet_xraykit.lint import lint_client
from xfleet_xraykit.protocols import InboundProtocol, find_protocol
from xfleet_xraykit.state import State

MAX_CHANGES = 200


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Entities that differ from what was applied."""

    put: Entities
    gone: Entities
    """With the bodies they had."""


def find_change(bodies: Entities, applied: Entities) -> Change | None:
    """The difference when it is a few clients only, else None."""
    put: Entities = {}
    for key, body in bodies.items():
        if applied.get(key) != body:
            put[key] = body
            if key.kind != "client" or len(put) > MAX_CHANGES:
                return None
    gone = {key: body for key, body in applied.items() if key not in bodies}
    if len(gone) > MAX_CHANGES or any(key.kind != "client" for key in gone):
        return None
    return Change(put=put, gone=gone)


class QuickPath:
    """Carries out changes of clients on inbounds that a full convergence left in order."""

    def __init__(self, start_id: str, inbounds: Mapping[int, InboundBody], applied: Entities) -> None:
        self.start_id = start_id
        self._inbounds = inbounds
        self._applied = applied
        self._holders: dict[int, dict[str, str]] = {}

    async def carry_out(self, running: RunningXray, change: Change, blocks: Blocks) -> int | None:
        """The number of steps when everything went well and was seen in Xray; None leaves it to the full path.

        Raises `XrayDown` or `XrayHung`.
        """
        planned = self._plan(running.shape, change)
        if planned is None:
            return None
        steps, wanted = planned
        if steps and not await self._execute(running, steps, wanted, blocks):
            return None
        self._remember(running.shape, change, wanted)
        return len(steps)

    def _plan(self, shape: Shape, change: Change) -> tuple[list[Step], dict[int, dict[str, Account]]] | None:
        removals: list[Step] = []
        additions: list[Step] = []
        wanted: dict[int, dict[str, Account]] = {}
        for key in change.gone:
            _, _, inbound = key.id.partition(".")
            if not inbound.isdigit() or int(inbound) not in self._inbounds:
                return None
            removals.append(RemoveClient(int(inbound), key.id, cut=True))
        for key, raw in change.put.items():
            account = self._judge(key, raw, change)
            if account is None:
                return None
            ref = int(key.id.partition(".")[2])
            running = shape.users.get(ref, {}).get(key.id)
            wanted.setdefault(ref, {})[key.id] = account
            if running is not None and account.covers(running):
                continue
            if running is not None:
                removals.append(RemoveClient(ref, key.id, cut=False))
            additions.append(AddClient(ref, key.id))
        return [*removals, *additions], wanted

    def _judge(self, key: EntityKey, raw: bytes, change: Change) -> Account | None:
        """The client's account when there is nothing at all to say against it."""
        try:
            client = msgspec.json.decode(raw, type=ClientBody)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return None
        inbound = self._inbounds.get(client.inbound)
        protocol = find_protocol(inbound) if inbound is not None else None
        if inbound is None or protocol is None or key.id != client_email(client.client, client.inbound):
            return None
        if lint_client(client, inbound):
            return None
        holder = self._holders_of(client.inbound, protocol).setdefault(_credential(client, protocol), key.id)
        if holder != key.id and EntityKey(kind="client", id=holder) not in change.gone:
            return None
        return protocol.account(client, inbound)

    def _holders_of(self, ref: int, protocol: InboundProtocol) -> dict[str, str]:
        """Credential to email on one inbound; made when first needed."""
        if ref not in self._holders:
            holders: dict[str, str] = {}
            for key, raw in self._applied.items():
                if key.kind == "client" and key.id.endswith(f".{ref}"):
                    holders[_credential(msgspec.json.decode(raw, type=ClientBody), protocol)] = key.id
            self._holders[ref] = holders
        return self._holders[ref]

    async def _execute(
        self, running: RunningXray, steps: list[Step], wanted: dict[int, dict[str, Account]], blocks: Blocks
    ) -> bool:
        await blocks.load(running)
        execution = Execution(running, State(inbounds=dict(self._inbounds)), Shape(users=wanted), blocks)
        try:
            await execution.run(steps)
        except RuleNeedsRestart:
            return False
        if execution.problems:
            return False
        for step in steps:
            if isinstance(step, AddClient):
                seen = await running.api.find_user(inbound_tag(step.inbound), step.email)
                if seen is None or not wanted[step.inbound][step.email].covers(seen):
                    return False
            elif isinstance(step, RemoveClient) and step.cut and await _is_there(running, step):
                return False
        return True

    def _remember(self, shape: Shape, change: Change, wanted: dict[int, dict[str, Account]]) -> None:
        for key, raw in change.gone.items():
            ref = int(key.id.partition(".")[2])
            users = shape.users.get(ref)
            if isinstance(users, dict):
                users.pop(key.id, None)
            self._forget_credential(ref, key.id, raw)
        for ref, accounts in wanted.items():
            users = shape.users.get(ref)
            if isinstance(users, dict):
                users.update(accounts)
        for key in change.put:
            old = self._applied.get(key)
            if old is not None and old != change.put[key]:
                self._forget_credential(int(key.id.partition(".")[2]), key.id, old)
                client = msgspec.json.decode(change.put[key], type=ClientBody)
                protocol = find_protocol(self._inbounds[client.inbound])
                if protocol is not None:
                    self._holders[client.inbound][_credential(client, protocol)] = key.id

    def _forget_credential(self, ref: int, email: str, raw: bytes) -> None:
        holders, protocol = self._holders.get(ref), find_protocol(self._inbounds[ref])
        if holders is None or protocol is None:
            return
        credential = _credential(msgspec.json.decode(raw, type=ClientBody), protocol)
        if holders.get(credential) == email:
            del holders[credential]

    def applied_is(self, applied: Entities) -> None:
        """What is applied now, after the change was stored."""
        self._applied = applied


async def _is_there(running: RunningXray, step: RemoveClient) -> bool:
    return await running.api.find_user(inbound_tag(step.inbound), step.email) is not None


def _credential(client: ClientBody, protocol: InboundProtocol) -> str:
    return str(getattr(client, protocol.credential)).lower()
