"""A place on the bus that survives everything: broker restarts, revocation, expiry, new credentials.

nats-py gives up for good when a broker ends the connection (expired, revoked, too large a message), and otherwise
retries without jitter. So here every connection is used until it breaks and then replaced by a new one, with growing,
jittered delays; subscriptions are renewed, handlers are never cancelled by a lost link.
"""

# pyright: reportUnknownMemberType=false
# nats-py leaves some of its own parameters untyped.

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec
from nats.js import JetStreamContext

from xfleet_contracts.errors import MessageTooLarge
from xfleet_contracts.message import MAX_MESSAGE_BYTES
from xfleet_runtime.backoff import Backoff
from xfleet_runtime.broker.credentials import Credentials
from xfleet_runtime.broker.dial import Proxy
from xfleet_runtime.broker.message import Incoming
from xfleet_runtime.broker.outages import Disconnected, PublishNotStored
from xfleet_runtime.broker.session import Session
from xfleet_runtime.broker.subscription import Handler, Subscription
from xfleet_runtime.errors import Unusable
from xfleet_runtime.log import get_logger
from xfleet_runtime.supervise import supervise

_log = get_logger(__name__)
STEADY_AFTER_S = 10.0
"""A connection that lived this long resets the delay; one that is cut again and again does not."""
RETIRE_GRACE_S = 10.0
CANCEL_AGAIN_S = 0.5
CALLBACK_TIMEOUT_S = 60.0
OnConnected = Callable[[], Awaitable[None]]


class _StoreError(msgspec.Struct):
    err_code: int = 0
    description: str = ""


class Stored(msgspec.Struct, frozen=True):
    """A stream's acknowledgement. The broker's word only: traffic waits for the controller's receipt."""

    stream: str = ""
    seq: int = 0
    duplicate: bool = False
    error: _StoreError | None = None


class BrokerLink:
    """The connection of one identity. Use as `async with`, or `start()` and `close()`.

    While there is no connection, sending raises `Disconnected` at once: nothing is buffered behind the caller's back.
    """

    def __init__(
        self, credentials: Credentials, *, name: str, longest_wait_s: float = 5.0, proxy: Proxy | None = None
    ) -> None:
        self.name = name
        self.last_error = ""
        """Why the link is or was down; empty before the first failure."""
        self.refused = False
        """Whether the broker, since we were last connected, did not want this identity: expired, revoked, unknown."""
        self._credentials = credentials
        self._proxy = proxy
        self._worked = ""
        """The address that worked last: it is tried first."""
        self._backoff = Backoff(first_s=0.25, most_s=longest_wait_s)
        self._session: Session | None = None
        self._subscriptions: dict[Subscription, list[asyncio.Task[None]]] = {}
        self._on_connected: list[OnConnected] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._connected = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._swap = asyncio.Lock()

    @property
    def credentials(self) -> Credentials:
        """Who we are now."""
        return self._credentials

    @property
    def connected(self) -> bool:
        """Whether a message can be sent now."""
        return self._session is not None and self._session.open

    @property
    def url(self) -> str:
        """The broker we are connected to; empty without a connection."""
        return self._session.url if self._session is not None and self._session.open else ""

    @property
    def way(self) -> str:
        """The same for people, with the proxy it goes through; never with a password."""
        return f"{self.url} via {self._proxy.shown}" if self.url and self._proxy is not None else self.url

    @property
    def js(self) -> JetStreamContext:
        """JetStream of the present connection, for roles that may use it; ask again after every `Disconnected`."""
        return self._current().client.jetstream()

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def start(self) -> None:
        """Begins to connect, and goes on for ever."""
        self._spawn(supervise(f"broker link {self.name}", self._keep_connected))

    async def close(self, grace_s: float = RETIRE_GRACE_S) -> None:
        """Takes no more messages, lets the handlers finish what came in, sends what they answer, and ends."""
        session, tasks = self._session, tuple(self._tasks)
        try:
            async with asyncio.timeout(grace_s):
                if session is not None and session.open:
                    await session.stop_receiving()
                    await asyncio.gather(*(subscription.settle() for subscription in self._subscriptions))
                    await session.flush()
        except (TimeoutError, Disconnected) as outage:
            _log.warning("handlers did not finish in time", link=self.name, reason=str(outage))
        await _cancel_all(set(tasks))
        self._connected.clear()
        last, self._session = self._session, None
        for each in (session, last):
            if each is not None:
                await each.close()

    async def wait_connected(self, timeout_s: float | None = None) -> None:
        """Returns when connected. Raises `Disconnected` with the last reason when that takes longer."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._connected.wait()
        except TimeoutError:
            raise Disconnected(self.last_error or "not connected to the broker") from None

    async def require_connected(self, timeout_s: float = 5.0) -> None:
        """Like `wait_connected`, for commands that can do nothing without: raises `Unusable` with what to do."""
        try:
            await self.wait_connected(timeout_s)
        except Disconnected as outage:
            where = " or ".join(self._credentials.urls)
            advice = "Have the credentials issued again" if self.refused else "Is it running, and the address right?"
            raise Unusable(f"Cannot get onto the bus at {where}: {outage}. {advice}") from outage

    def on_connected(self, callback: OnConnected) -> None:
        """Calls this after every new connection that follows a gap, with all subscriptions already standing."""
        self._on_connected.append(callback)

    async def publish(
        self, subject: str, payload: bytes, *, headers: Mapping[str, str] | None = None, reply: str = ""
    ) -> None:
        """Sends a message at most once. Raises `Disconnected` or `MessageTooLarge`."""
        _check_size(payload)
        await self._current().publish(subject, payload, reply, headers)

    async def request(
        self, subject: str, payload: bytes, *, timeout_s: float, headers: Mapping[str, str] | None = None
    ) -> Incoming:
        """The first answer. Raises `NoResponders` (nobody got it), `RequestTimedOut` or `Disconnected` (unknown)."""
        _check_size(payload)
        return await self._current().request(subject, payload, timeout_s, headers)

    async def collect(self, subject: str, payload: bytes, *, timeout_s: float, count: int) -> tuple[Incoming, ...]:
        """The answers of up to `count` responders, those that came in time. Raises `Disconnected`."""
        _check_size(payload)
        return await self._current().collect(subject, payload, timeout_s, count)

    async def respond(
        self, message: Incoming, payload: bytes, *, within: str, headers: Mapping[str, str] | None = None
    ) -> bool:
        """Answers only if the asker wants it below the inbox `within`; False otherwise, and nothing is sent.

        The reply subject is chosen by the asker and checked by nobody else: it may name a stream's deletion.
        """
        if not message.reply.startswith(f"{within}.") or any(mark in message.reply for mark in "*> "):
            return False
        _check_size(payload)
        origin = message.origin if message.origin is not None and message.origin.open else self._current()
        await origin.publish(message.reply, payload, "", headers)
        return True

    async def publish_stored(
        self, subject: str, payload: bytes, *, message_id: str, stream: str = "", timeout_s: float = 5.0
    ) -> Stored:
        """Publishes to a stream and waits for its acknowledgement; `message_id` is deduplicated by the stream.

        Raises `PublishNotStored` when the stream refuses, `NoResponders` without a stream or leader, and
        `RequestTimedOut` or `Disconnected` when it is unknown whether it was stored.
        """
        headers = {"Nats-Msg-Id": message_id}
        if stream:
            headers["Nats-Expected-Stream"] = stream
        answer = await self.request(subject, payload, timeout_s=timeout_s, headers=headers)
        try:
            stored = msgspec.json.decode(answer.payload, type=Stored)
        except msgspec.MsgspecError as cause:
            raise PublishNotStored("the answer is not a stream's", 0) from cause
        if stored.error is not None or not stored.stream:
            error = stored.error or _StoreError(description="the answer is not a stream's")
            raise PublishNotStored(error.description, error.err_code)
        return stored

    async def subscribe(
        self, subject: str, handler: Handler, *, queue: str = "", workers: int = 1, pending_max: int = 8192
    ) -> Subscription:
        """Calls the handler for every message, on this and all later connections; returns once the broker knows.

        One worker keeps the order. While credentials are replaced a plain subscription may see a message twice, one
        with a queue group never does.
        """
        subscription = Subscription(subject, queue, handler, pending_max)
        self._subscriptions[subscription] = [
            self._spawn(supervise(f"handler of {subject}", subscription.work)) for _ in range(workers)
        ]
        session = self._session
        if session is not None and session.open:
            await session.add_missing((subscription,))
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """Ends a subscription; messages still waiting for the handler are dropped."""
        for task in self._subscriptions.pop(subscription, []):
            task.cancel()
        subscription.discard()
        if self._session is not None:
            await self._session.remove(subscription)

    async def flush(self) -> None:
        """Waits until the broker has processed everything sent so far. Raises `Disconnected`."""
        await self._current().flush()

    async def replace_credentials(self, credentials: Credentials) -> None:
        """Moves to new credentials without a gap: connects with them, then lets the old connection finish.

        Raises `Disconnected`, keeping the old ones, when the broker refuses the new. Without a connection the new
        ones are simply tried next, at once.
        """
        async with self._swap:
            old = self._session
            if old is None or not old.open:
                self._credentials, self.refused = credentials, False
                self._retry_now.set()
                return
            new = await self._open(credentials)
            self._credentials, self._session = credentials, new
            await new.add_missing(self._subscriptions)
        await old.retire(RETIRE_GRACE_S)

    def _current(self) -> Session:
        if self._session is None or not self._session.open:
            raise Disconnected(self.last_error or "not connected to the broker")
        return self._session

    async def _keep_connected(self) -> None:
        while True:
            session = await self._reconnect()
            started = asyncio.get_running_loop().time()
            await self._tell_connected()
            while session is not None:
                await session.wait_ended()
                session = self._session if self._session is not session else None
            self._connected.clear()
            await self._after_loss(asyncio.get_running_loop().time() - started)

    async def _after_loss(self, lived_s: float) -> None:
        async with self._swap:
            lost, self._session = self._session, None
        if lost is not None:
            self.last_error = lost.last_error or "the connection broke"
            self.refused = self.refused or lost.was_refused
            await lost.close()
        _log.warning("link to the broker lost", link=self.name, reason=self.last_error)
        if lived_s > STEADY_AFTER_S:
            self._backoff.reset()
        await self._pause()

    async def _reconnect(self) -> Session:
        while True:
            try:
                async with self._swap:
                    self._session = session = await self._open(self._credentials)
                    await session.add_missing(self._subscriptions)
            except Disconnected as outage:
                if str(outage) != self.last_error:
                    _log.warning("broker unreachable", link=self.name, reason=str(outage))
                self.last_error = str(outage)
                await self._pause()
                continue
            self.refused = False
            _log.info("connected to the broker", link=self.name, url=session.url)
            return session

    async def _open(self, credentials: Credentials) -> Session:
        outage = Disconnected("no broker address is known")
        refused = False
        for url in in_order(credentials.urls, self._worked):
            session = Session(credentials, url, self._proxy)
            try:
                await session.start(self.name, tuple(self._subscriptions))
            except Disconnected as failure:
                if session.was_refused or not refused:
                    outage = failure
                refused = refused or session.was_refused
            else:
                self._worked = url
                return session
        self.refused = self.refused or refused  # its reason may be lost on the way: a broken pipe says nothing
        raise outage

    async def _tell_connected(self) -> None:
        self._connected.set()
        for callback in self._on_connected:
            try:
                async with asyncio.timeout(CALLBACK_TIMEOUT_S):
                    await callback()
            except Exception:  # noqa: BLE001  the edge between link and service
                _log.exception("a callback after connecting failed", link=self.name)

    async def _pause(self) -> None:
        try:
            async with asyncio.timeout(self._backoff.next_s()):
                await self._retry_now.wait()
        except TimeoutError:
            return
        self._retry_now.clear()

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def in_order(urls: Sequence[str], worked: str) -> list[str]:
    """All addresses: the one that worked last, then TCP before WebSocket, each in random order to spread a fleet."""
    shuffled = random.sample(urls, len(urls))
    return sorted(shuffled, key=lambda url: (url != worked, url.startswith("wss:")))


def _check_size(payload: bytes) -> None:
    if len(payload) > MAX_MESSAGE_BYTES:
        raise MessageTooLarge(size_bytes=len(payload), limit_bytes=MAX_MESSAGE_BYTES)


async def _cancel_all(tasks: set[asyncio.Task[None]]) -> None:
    """Ends the tasks; asks again, because nats-py swallows a cancellation that meets it while it connects."""
    while tasks:
        for task in tasks:
            task.cancel()
        _, tasks = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)
