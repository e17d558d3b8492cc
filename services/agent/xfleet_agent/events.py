"""Events: tells what the agent noticed, as far as the bus allows; nothing depends on arrival."""

from collections import deque
from typing import Any

from xfleet_agent.fleet_clock import FleetClock
from xfleet_contracts.events import AgentEvent
from xfleet_runtime.ids import new_id
from xfleet_runtime.log import get_logger

KEPT_COUNT = 200
_log = get_logger(__name__)


class Events:
    """What happened and was not sent yet; the oldest give way when the bus is gone for long."""

    def __init__(self, clock: FleetClock) -> None:
        self._clock = clock
        self._waiting: deque[AgentEvent] = deque(maxlen=KEPT_COUNT)

    def tell(self, kind: str, **details: Any) -> None:
        """Notes an event of this type (a past participle) and logs it."""
        _log.info(kind.replace("_", " "), **details)
        self._waiting.append(AgentEvent(type=kind, id=new_id(), at_ms=self._clock.now_ms(), details=details))

    def peek(self) -> AgentEvent | None:
        """The next to send."""
        return self._waiting[0] if self._waiting else None

    def sent(self, event: AgentEvent) -> None:
        """It is on the bus."""
        if self._waiting and self._waiting[0] is event:
            self._waiting.popleft()
