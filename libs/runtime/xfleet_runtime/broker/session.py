"""One connection to one broker, from handshake to end; it is never repaired, only replaced."""

# pyright: reportUnknownMemberType=false
# nats-py leaves some of its own parameters untyped.

import asyncio
import secrets
from collections.abc import Iterable, Mapping

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as NatsSubscription
from nats.errors import Error as NatsError
from nats.errors import NoServersError

from xfleet_runtime.broker.credentials import Credentials, NonceSigner, tls_context
from xfleet_runtime.broker.dial import Proxy, ProxyRefusedError
from xfleet_runtime.broker.message import Incoming
from xfleet_runtime.broker.outages import Disconnected, NoResponders, RequestTimedOut
from xfleet_runtime.broker.subscription import Subscription
from xfleet_runtime.broker.transports import transport_for
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
CONNECT_TIMEOUT_S = 5.0
FLUSH_TIMEOUT_S = 5.0
PING_INTERVAL_S = 10
PINGS_OUTSTANDING_MAX = 2
LIVENESS_CHECK_S = 1.0
CLOSE_TIMEOUT_S = 0.5
"""nats-py waits for ever for the end of a connection whose TLS handshake failed."""
_NO_RESPONDERS = "503"
_REFUSALS = ("authorization", "authentication", "revoked", "alert")
_VIOLATION = "permissions violation"


class Session:
    """A live nats-py client with its own reply inbox; `ended` is set when it is over."""

    def __init__(self, credentials: Credentials, url: str, proxy: Proxy | None = None) -> None:
        self.url = url
        self.ended = asyncio.Event()
        self.last_error = ""
        """What the broker or the network said last; empty when nothing."""
        self.client = Client()
        self.client._transport = transport_for(url, credentials.tls_name, proxy)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        self._credentials = credentials
        self._inbox = f"{credentials.inbox_prefix}.{secrets.token_hex(8)}"
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._collecting: dict[str, asyncio.Queue[Incoming]] = {}
        self._proxy_failed = False
        self._request_count = 0
        self._unsettled_count = 0
        self._all_settled = asyncio.Event()
        self._held: dict[Subscription, NatsSubscription] = {}
        self._open = False

    @property
    def open(self) -> bool:
        """Whether messages can be sent now."""
        return self._open and self.client.is_connected

    async def start(self, name: str, subscriptions: tuple[Subscription, ...]) -> None:
        """Connects, proves who we are, subscribes, and returns only when the broker has accepted all that.

        Raises `Disconnected` with the broker's or the network's own words.
        """
        signer = NonceSigner(self._credentials)
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                await self.client.connect(
                    servers=[self.url],
                    name=name,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    connect_timeout=int(CONNECT_TIMEOUT_S),
                    ping_interval=PING_INTERVAL_S,
                    max_outstanding_pings=PINGS_OUTSTANDING_MAX,
                    tls=tls_context(self._credentials),
                    tls_hostname=self._credentials.tls_name,
                    user_jwt_cb=signer.user_jwt,
                    signature_cb=signer.sign,
                    inbox_prefix=self._credentials.inbox_prefix,
                    error_cb=self._on_error,
                    closed_cb=self._on_closed,
                )
                self._open = True
                await self.client.subscribe(f"{self._inbox}.*", cb=self._on_answer)
                for subscription in subscriptions:
                    await self.add(subscription)
                await self.flush()
        except (OSError, NatsError, TimeoutError) as error:
            await self.close()
            raise Disconnected(f"{self.url}: {self.last_error or error or 'no answer in time'}") from error
        except BaseException:
            await self.close()
            raise

    async def add(self, subscription: Subscription) -> None:
        """Subscribes on this connection; the broker knows it after the next flush."""

        async def deliver(message: Msg) -> None:
            self._unsettled_count += 1
            subscription.deliver(_incoming(message, self))

        if subscription not in self._held:
            self._held[subscription] = await self.client.subscribe(
                subscription.subject, queue=subscription.queue, cb=deliver
            )

    async def add_missing(self, wanted: Iterable[Subscription]) -> None:
        """Subscribes whatever came up while this connection was being made. Raises `Disconnected`."""
        missing = [subscription for subscription in wanted if subscription not in self._held]
        try:
            for subscription in missing:
                await self.add(subscription)
            if missing:
                await self.flush()
        except (NatsError, OSError, TimeoutError) as error:
            raise Disconnected(f"{self.url}: {error}") from error

    async def remove(self, subscription: Subscription) -> None:
        """Ends a subscription on this connection; without a connection there is nothing to end."""
        held = self._held.pop(subscription, None)
        if held is not None and self.client.is_connected:
            await held.unsubscribe()

    async def stop_receiving(self) -> None:
        """Ends all subscriptions after handing over what the broker has already sent. Raises `Disconnected`.

        Not by nats-py's own drain: its flush overtakes the UNSUB, so that a message between the two would be lost.
        """
        held = tuple(self._held.values())
        self._held.clear()
        if not held or not self.client.is_connected:
            return
        for each in held:
            await self.client._send_unsubscribe(each._id)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
        await self.flush()
        while any(each.pending_msgs for each in held):  # noqa: ASYNC110  handed over within a turn of the loop
            await asyncio.sleep(0)

    async def flush(self) -> None:
        """Waits until the broker has processed everything sent so far. Raises `Disconnected`."""
        if not self.client.is_connected:
            raise Disconnected(f"{self.url}: {self.last_error or 'the broker closed the connection'}")
        try:
            # nats-py writes a flush's PING past what it has queued, so only the second one comes after all of it.
            for _ in range(2):
                await self.client.flush(timeout=int(FLUSH_TIMEOUT_S))
        except (NatsError, OSError, TimeoutError) as error:
            raise Disconnected(f"{self.url}: {self.last_error or error}") from error

    async def publish(self, subject: str, payload: bytes, reply: str, headers: Mapping[str, str] | None) -> None:
        """Hands a message to the connection. Raises `Disconnected`."""
        try:
            await self.client.publish(subject, payload, reply=reply, headers=dict(headers) if headers else None)
        except (NatsError, OSError) as error:
            raise Disconnected(f"{self.url}: {error}") from error

    async def request(
        self, subject: str, payload: bytes, timeout_s: float, headers: Mapping[str, str] | None
    ) -> Incoming:
        """The first answer. Raises `NoResponders`, `RequestTimedOut` or, as soon as the link breaks, `Disconnected`."""
        self._request_count += 1
        token = str(self._request_count)
        answer: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = answer
        try:
            await self.publish(subject, payload, f"{self._inbox}.{token}", headers)
            async with asyncio.timeout(timeout_s):
                message = await answer
        except TimeoutError:
            raise RequestTimedOut(f"no answer on {subject} within {timeout_s:g} s") from None
        finally:
            del self._waiting[token]
        incoming = _incoming(message)
        if _is_no_responders(incoming):
            raise NoResponders(f"nobody listens on {subject}")
        return incoming

    async def collect(self, subject: str, payload: bytes, timeout_s: float, count: int) -> tuple[Incoming, ...]:
        """All answers of everybody who answers: up to `count`, or those that came in time. Raises `Disconnected`."""
        self._request_count += 1
        token = str(self._request_count)
        queue: asyncio.Queue[Incoming] = asyncio.Queue()
        self._collecting[token] = queue
        answers: list[Incoming] = []
        try:
            await self.publish(subject, payload, f"{self._inbox}.{token}", None)
            async with asyncio.timeout(timeout_s):
                while len(answers) < count and not (answers and _is_no_responders(answers[0])):
                    answers.append(await queue.get())
        except TimeoutError:
            _log.debug("fewer answers than asked for", subject=subject, answers=len(answers))
        finally:
            del self._collecting[token]
        return tuple(answer for answer in answers if not _is_no_responders(answer))

    async def wait_ended(self) -> None:
        """Returns when the connection is over; looks at the client too, for nats-py can end without saying so."""
        while not self.client.is_closed:
            try:
                async with asyncio.timeout(LIVENESS_CHECK_S):
                    await self.ended.wait()
            except TimeoutError:
                continue
            break
        self._end()

    async def close(self) -> None:
        """Ends the connection at once."""
        self._open = False
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self.client.close()
        except (OSError, NatsError, TimeoutError) as error:
            _log.debug("closing the broker connection failed", url=self.url, error=str(error))
        self._end()

    def settled(self) -> None:
        """Learns that one of its messages has been handled."""
        self._unsettled_count -= 1
        if self._unsettled_count == 0:
            self._all_settled.set()

    async def retire(self, grace_s: float) -> None:
        """Ends the connection once its requests are answered and its messages are handled."""
        try:
            async with asyncio.timeout(grace_s):
                await self.stop_receiving()
                while self._unsettled_count and self.open:
                    self._all_settled.clear()
                    await self._all_settled.wait()
                while self._waiting and self.open:
                    await asyncio.wait(tuple(self._waiting.values()))
                    await asyncio.sleep(0)
                if self.open:
                    await self.flush()
        except (TimeoutError, OSError, NatsError, Disconnected) as error:
            _log.debug("the old broker connection did not drain", url=self.url, error=str(error))
        await self.close()

    @property
    def was_refused(self) -> bool:
        """Whether the broker ended or refused the connection because of who we are."""
        return not self._proxy_failed and any(word in self.last_error.lower() for word in _REFUSALS)

    async def _on_error(self, error: Exception) -> None:
        text = str(error) or type(error).__name__
        if _VIOLATION in text.lower():
            _log.error("the broker forbids what this role tried", url=self.url, error=text)
            return
        self._note(error)

    async def _on_closed(self) -> None:
        error = self.client.last_error
        if error is not None and _VIOLATION not in str(error).lower():
            self._note(error)
        self._end()

    def _note(self, error: Exception) -> None:
        if self.last_error and isinstance(error, NoServersError):  # the reason was told before
            return
        self._proxy_failed = isinstance(error, ProxyRefusedError)
        self.last_error = str(error) or type(error).__name__

    async def _on_answer(self, message: Msg) -> None:
        inbox, _, token = message.subject.rpartition(".")
        if (
            inbox != self._inbox
        ):  # a broker can deliver under any subject; what was asked elsewhere is not answered here
            return
        answer, queue = self._waiting.get(token), self._collecting.get(token)
        if answer is not None and not answer.done():
            answer.set_result(message)
        elif queue is not None:
            queue.put_nowait(_incoming(message))

    def _end(self) -> None:
        self._open = False
        self.ended.set()
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(Disconnected(f"{self.url}: {self.last_error or 'the connection broke'}"))


def _incoming(message: Msg, origin: Session | None = None) -> Incoming:
    return Incoming(message.subject, message.data, message.reply, message.headers or {}, origin)


def _is_no_responders(message: Incoming) -> bool:
    return not message.payload and message.headers.get("Status") == _NO_RESPONDERS
