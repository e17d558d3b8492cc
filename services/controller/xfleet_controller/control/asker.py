"""Who asks on the bus: a Telegram account that acts for an admin, or an API token."""

from collections import deque

from xfleet_contracts.control import ActorRequest, ControlRateLimited
from xfleet_contracts.errors import Refusal
from xfleet_controller.auth import service as auth
from xfleet_controller.auth.rights import Actor
from xfleet_controller.bot import service as bot
from xfleet_controller.context import Context

ADDRESS = "bus"
WRONG_PER_MINUTE = 30


class TokenWrong(Refusal):
    """The API token of a command line is unknown, expired or revoked."""

    code = "not_signed_in"
    status = 401
    message = "The API token in these credentials is not valid (any more). Run: xfleet-controller cli-credentials"


class Askers:
    """Finds out who asks."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wrong_at_s: deque[float] = deque()

    async def who(self, request: ActorRequest) -> Actor:
        """The actor. Raises `NotBound`, `TokenWrong` or `ControlRateLimited`."""
        if not request.token:
            return await bot.who_is(self._context, request.telegram_id)
        try:
            return await auth.who_is(self._context, request.token, kind="bearer", address=ADDRESS)
        except auth.NotSignedIn:
            self._note_wrong()
            raise TokenWrong from None

    def _note_wrong(self) -> None:
        """A token cannot be guessed; this only keeps a runaway from filling the log. Raises `ControlRateLimited`."""
        now_s = self._context.clock.monotonic_s()
        while self._wrong_at_s and self._wrong_at_s[0] < now_s - 60:
            self._wrong_at_s.popleft()
        if len(self._wrong_at_s) >= WRONG_PER_MINUTE:
            raise ControlRateLimited
        self._wrong_at_s.append(now_s)
