"""Renewal: new credentials for the same keys, monthly over the bus, or over HTTPS when the broker refuses the old ones.

Over the bus the agent connects with the new credentials before it lets the old connection go, so that nothing is lost.
Over HTTPS nothing is believed for the panel's TLS certificate: the request is signed by the agent's own nkey, the
answer by a controller that the fleet root vouches for in its manifest, and bound to this very request.
"""

import asyncio
import base64
import random

import msgspec

from xfleet_agent.calls import opened
from xfleet_agent.identity import credentials_of
from xfleet_agent.parts import Parts
from xfleet_agent.post import post
from xfleet_contracts import codec
from xfleet_contracts.commands import CLOCK, SIGNATURE_HEADER, Reply
from xfleet_contracts.enrollment import (
    RENEW_CONTEXT,
    RENEW_HEADER,
    RENEW_PATH,
    EnrollAnswer,
    EnrollRequest,
    HttpsRenewal,
    Manifest,
)
from xfleet_contracts.errors import Refusal, RemoteRefusal
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.broker import BrokerOutage, Disconnected, parse_proxy
from xfleet_runtime.errors import Unusable
from xfleet_runtime.ids import new_token
from xfleet_runtime.keys.nkeys import KeyPair
from xfleet_runtime.keys.signing import Asked, open_manifest, trusted_keys, verify_answer
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
CHECK_S = 3600.0
SPREAD = 0.1
"""A fleet that enrolled in one hour does not renew in one hour."""
RETURN_AFTER_S = 3.0
"""How long the broker must have refused us before the panel is asked."""
RETURN_LONGEST_S = 600.0
POST_TIMEOUT_S = 15.0


class AnswerUnsigned(BrokerOutage):
    """What came over HTTPS is no controller's answer to our question: as good as none."""


class Renewal:
    """Keeps this agent's credentials fresh."""

    def __init__(self, parts: Parts, *, every_s: float) -> None:
        self._parts = parts
        self._every_s = every_s * random.uniform(1 - SPREAD, 1 + SPREAD)  # noqa: S311  jitter, not a secret
        self._proxy = parse_proxy(parts.settings.broker_proxy)
        self._renewing = asyncio.Lock()

    def wait_s(self) -> float:
        """Seconds until renewal is due: a month after the last one, and at the latest with a third of life left."""
        credentials = self._parts.identity.credentials()
        now_s = self._parts.clock.now_ms() / 1000
        lifetime_s = credentials.expires_at - credentials.issued_at
        due_s = credentials.issued_at + self._every_s
        if credentials.expires_at:
            due_s = min(due_s, credentials.expires_at - lifetime_s / 3)
        return max(0.0, due_s - now_s)

    async def run(self) -> None:
        """Renews over the bus, for ever; what fails is tried again with growing delays."""
        backoff = Backoff(first_s=1.0, most_s=CHECK_S)
        while True:
            wait_s = self.wait_s()
            if wait_s > 0:
                await asyncio.sleep(min(wait_s, CHECK_S))
                continue
            if not self._parts.link.connected:
                await self._parts.link.wait_connected()
                continue
            try:
                await self.renew()
            except (BrokerOutage, Refusal, Unusable) as error:
                _log.warning("credentials were not renewed yet", reason=str(error))
                await asyncio.sleep(backoff.next_s())
            else:
                backoff.reset()
                await asyncio.sleep(min(1.0, self._every_s))

    async def renew(self) -> None:
        """New certificate and JWT over the bus. Raises `BrokerOutage`, `Refusal` or `Unusable`, keeping the old."""
        async with self._renewing:
            answer = await self._parts.calls.renew(_request(self._parts))
            await self._take(answer)
        self._parts.events.tell("credentials_renewed")

    async def come_back(self) -> None:
        """Asks the panel for new credentials whenever the broker goes on refusing ours, for ever."""
        backoff = Backoff(first_s=5.0, most_s=RETURN_LONGEST_S)
        while True:
            await asyncio.sleep(RETURN_AFTER_S)
            link = self._parts.link
            if link.connected or not link.refused:
                backoff.reset()
                continue
            if await self._ask_panels():
                try:
                    await link.wait_connected(RETURN_AFTER_S)
                except Disconnected:
                    _log.warning("the broker refuses the new credentials too", reason=link.last_error)
                else:
                    self._parts.events.tell("credentials_renewed", over="https")
                    continue
            await asyncio.sleep(backoff.next_s())

    async def _ask_panels(self) -> bool:
        for url in self._parts.identity.manifest.panel_urls:
            try:
                answer = await self._ask(url)
                async with self._renewing:
                    await self._take(answer)
            except RemoteRefusal as refusal:
                _log.warning("the panel does not renew our credentials", url=url, code=refusal.remote_code)
            except (OSError, BrokerOutage, Refusal, Unusable) as error:
                _log.warning("the panel could not be asked for credentials", url=url, reason=str(error))
            else:
                return True
        return False

    async def _ask(self, url: str) -> EnrollAnswer:
        try:
            return await self._exchange(url, self._parts.clock.now_ms())
        except RemoteRefusal as refusal:
            now_ms = refusal.details.get("now_ms")
            if refusal.remote_code != CLOCK or not isinstance(now_ms, int):
                raise
        return await self._exchange(url, now_ms)

    async def _exchange(self, url: str, issued_at_ms: int) -> EnrollAnswer:
        identity = self._parts.identity
        asked = HttpsRenewal(
            sid=identity.sid, request=_request(self._parts), issued_at_ms=issued_at_ms, nonce=new_token()
        )
        question = codec.encode(asked)
        signature = KeyPair.from_seed(identity.data.nkey_seed).sign(RENEW_CONTEXT + question)
        answer = await post(
            f"{url.rstrip('/')}{RENEW_PATH}",
            question,
            {RENEW_HEADER: base64.urlsafe_b64encode(signature).decode().rstrip("=")},
            proxy=self._proxy,
            timeout_s=POST_TIMEOUT_S,
        )
        manifest = self._manifest_in(answer.body)
        bound = Asked(reply=asked.nonce, subject=RENEW_PATH, question=question)
        try:
            verify_answer(trusted_keys(manifest), answer.headers.get(SIGNATURE_HEADER.lower()), bound, answer.body)
        except Refusal as refusal:
            raise AnswerUnsigned(f"HTTP {answer.status}, {refusal.text}") from refusal
        return opened(answer.body, EnrollAnswer)

    def _manifest_in(self, body: bytes) -> Manifest:
        """Whom to believe: the manifest in the answer if the root signed it and it is not older than ours."""
        identity = self._parts.identity
        try:
            reply = codec.decode(body, Reply)
            signed = codec.decode(bytes(reply.data), EnrollAnswer).manifest
            manifest = open_manifest(identity.data.root_public_key, signed)
        except Refusal:
            return identity.manifest
        return manifest if manifest.serial >= identity.manifest.serial else identity.manifest

    async def _take(self, answer: EnrollAnswer) -> None:
        """Moves the link first: if the broker refuses the new credentials, the old ones stay in use and on disk."""
        identity = self._parts.identity
        renewed = identity.renewed(answer)
        manifest = open_manifest(renewed.root_public_key, renewed.manifest)
        await self._parts.link.replace_credentials(credentials_of(renewed, manifest))
        if identity.manifest.serial > manifest.serial:  # learned meanwhile
            renewed = msgspec.structs.replace(renewed, manifest=identity.data.manifest)
        identity.save(renewed)
        self._parts.beat.set()


def _request(parts: Parts) -> EnrollRequest:
    from xfleet_runtime.keys.x509 import request_pem  # noqa: PLC0415  needed once a month, and large

    data = parts.identity.data
    return EnrollRequest(nkey=KeyPair.from_seed(data.nkey_seed).public, csr_pem=request_pem(data.key_pem))
