"""Control: bot and command line ask the controller on behalf of a bound admin or client.

Subject  fleet.ctl.<method> (bot, CLI -> controller, NATS micro service `xfleet`, queue group)
Rhythm   on demand
Loss     the asker repeats; orders carry an id
"""

from xfleet_contracts.errors import Refusal
from xfleet_contracts.message import Message, Secret

STATUS = "status"
BIND = "bind"
WHOAMI = "whoami"


class NotBound(Refusal):
    """The Telegram account acts for nobody."""

    code = "not_bound"
    status = 403
    message = "This Telegram account is not bound to an admin."


class BotCodeWrong(Refusal):
    """The bot code is unknown, used or expired; which of them is not told."""

    code = "bot_code_wrong"
    status = 403
    message = "This bot code is not valid. Make a new one in the panel under Settings."


class ControlRateLimited(Refusal):
    """Too many tries by this asker."""

    code = "rate_limited"
    status = 429
    message = "Too many tries. Wait a minute, then try again."


class BindRequest(Message, frozen=True, kw_only=True):
    """`bind`: ties a Telegram account to the admin who made the one-time bot code."""

    telegram_id: int
    code: Secret
    name: str = ""


class ActorRequest(Message, frozen=True, kw_only=True):
    """`whoami` and `status`: who asks."""

    telegram_id: int


class Actor(Message, frozen=True, kw_only=True):
    """Answer to `bind` and `whoami`."""

    admin: str
    role: str


class ServerLine(Message, frozen=True, kw_only=True):
    """One server in a status."""

    slug: str
    name: str
    status: str
    xray: str = ""
    cpu_percent: float = 0
    memory_percent: float = 0
    clients_online_count: int = 0
    up_bytes_s: int = 0
    down_bytes_s: int = 0


class FleetStatus(Message, frozen=True, kw_only=True):
    """Answer to `status`."""

    servers: tuple[ServerLine, ...]
    clients_count: int
    clients_online_count: int
    up_bytes: int
    down_bytes: int
