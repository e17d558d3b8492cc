"""What the bot says, as Telegram HTML; everything that came from elsewhere is escaped here."""

from html import escape

from xfleet_contracts.control import Actor, FleetStatus, ServerLine

TELEGRAM_LIMIT = 4096
_ROOM = 3600
"""Letters for server lines, so that header and footer always fit in one message."""
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_MARKS = {"online": "🟢", "stale": "🟡", "offline": "🔴"}
_WORST_FIRST = {"offline": 0, "stale": 1}

HOW_TO_BIND = (
    "This Telegram account is not bound to an admin yet.\n\n"
    "In the panel, open <b>Settings → Telegram</b>, make a one-time bot code, and send it to me."
)
HELP = (
    "/status – servers, clients online, traffic\n"
    "/start – who you are here, or how to bind this account\n"
    "/help – this list"
)
UNREACHABLE = (
    "⚠️ I cannot reach the panel right now. The servers go on without it, and I can tell more as soon as it is back."
)
FAILED = "Something went wrong here. It is in the log under <code>{error_id}</code>."


def bound(actor: Actor) -> str:
    """After a code was right."""
    return f"✅ This account now acts for <b>{escape(actor.admin)}</b> ({escape(actor.role)}).\n\n{HELP}"


def welcome(actor: Actor) -> str:
    """For somebody who is bound already."""
    return f"You are <b>{escape(actor.admin)}</b> ({escape(actor.role)}).\n\n{HELP}"


def refusal(message: str) -> str:
    """The panel's own sentence."""
    return f"❌ {escape(message)}"


def status(fleet: FleetStatus) -> str:
    """The fleet in one message; with many servers the troubled ones come first and the rest is counted."""
    blocks = [_server(line) for line in sorted(fleet.servers, key=lambda line: _WORST_FIRST.get(line.status, 2))]
    shown: list[str] = []
    for block in blocks:
        if sum(map(len, shown)) + len(block) > _ROOM:
            break
        shown.append(block)
    left_count = len(blocks) - len(shown)
    if left_count:
        shown.append(f"… and {left_count} more")
    total = (
        f"Clients {fleet.clients_count}, online {fleet.clients_online_count}\n"
        f"Traffic ↑ {size(fleet.up_bytes)}  ↓ {size(fleet.down_bytes)}"
    )
    return "\n\n".join([*(shown or ["There are no servers yet."]), total])


def size(count_bytes: int) -> str:
    """Bytes for people: three digits at most before the unit."""
    value, unit = float(count_bytes), 0
    while value >= 1000 and unit < len(_UNITS) - 1:  # noqa: PLR2004
        value, unit = value / 1024, unit + 1
    return f"{value:.0f} {_UNITS[unit]}" if unit == 0 else f"{value:.1f} {_UNITS[unit]}"


def _server(line: ServerLine) -> str:
    head = f"{_MARKS.get(line.status, '⚪')} <b>{escape(line.name[:60] or line.slug)}</b> {escape(line.status)}"
    if line.status == "offline":
        return head
    return (
        f"{head}\n"
        f"Xray {escape(line.xray[:60]) or '?'} · CPU {line.cpu_percent:.0f} % · memory {line.memory_percent:.0f} %\n"
        f"{line.clients_online_count} online · ↑ {size(line.up_bytes_s)}/s  ↓ {size(line.down_bytes_s)}/s"
    )
