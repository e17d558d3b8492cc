"""Meeting an agent that holds a state this database never had: first look what only the agent knows, and keep it."""

from sqlalchemy.ext.asyncio import AsyncSession

from xfleet_contracts.care import STATE_READ, StateHeld, StateRead
from xfleet_contracts.commands import UNKNOWN_VERB
from xfleet_contracts.desired_state import EntityKey, StatePoint
from xfleet_contracts.errors import RemoteRefusal
from xfleet_controller.auth.rights import SYSTEM
from xfleet_controller.bus import BAD_ANSWER, Commander
from xfleet_controller.context import Context
from xfleet_controller.outbox import note_event
from xfleet_controller.servers import state
from xfleet_controller.servers.compile import Scope
from xfleet_controller.servers.difference import POINTS_KEPT_COUNT, is_known_point
from xfleet_controller.servers.models import ServerRevision
from xfleet_controller.servers.strays import MAX_STRAYS, MAX_STRAYS_BYTES, keep_strays
from xfleet_runtime.log import get_logger

_log = get_logger(__name__)
MOST_AHEAD_COUNT = 2**24
"""Revisions that a restored database may be behind; an agent that claims more lies, and numbers are not endless."""
CANNOT_TELL = frozenset({UNKNOWN_VERB, BAD_ANSWER})
"""Agents of the first release do not know the question; nobody waits for ever for one that answers nonsense."""
MAX_PAGES = 1000
MOST_READINGS = 3


async def holds_the_unknown(session: AsyncSession, row: ServerRevision, held: StatePoint) -> bool:
    """Whether the agent's point is none of this database's, and not only one that is long forgotten."""
    if held.revision == 0 or held == StatePoint(revision=row.desired_revision, digest=row.desired_digest):
        return False
    in_reach = row.desired_revision - POINTS_KEPT_COUNT <= held.revision <= row.desired_revision + MOST_AHEAD_COUNT
    return in_reach and not await is_known_point(session, row.server_id, held)


async def recover(context: Context, commander: Commander, server_id: int, sid: str) -> StatePoint | None:
    """Keeps what only the agent knows, as part of its desired state; the point the agent is at.

    None when the agent cannot tell: it then gets a snapshot without strays. Raises what
    `Commander.request` raises.
    """
    try:
        point, held = await _read(commander, sid)
    except RemoteRefusal as refusal:
        if refusal.remote_code not in CANNOT_TELL:
            raise
        _log.warning("an agent cannot tell what only it knows", sid=sid, reason=refusal.remote_code)
        return None
    scope = Scope(whole=True)
    async with (
        context.database.write() as session,
        state.changing(session, context, [server_id], operation="keep_strays", actor=SYSTEM, scope=scope) as change,
    ):
        names = await keep_strays(session, context.vault, server_id, held, change.now)
        if names:
            details = {"count": len(names), "inbounds": sum(kind == "inbound" for kind, _ in names)}
            note_event(session, "strays_found", change.now, server=sid, details=details)
    _log.warning("a server held a state this database never had", sid=sid, strays=len(names))
    return point


async def _read(commander: Commander, sid: str) -> tuple[StatePoint, dict[EntityKey, bytes]]:
    """The agent's state, all pages from the same point; an agent that tells without end is not heard to its end."""
    for _ in range(MOST_READINGS):
        held: dict[EntityKey, bytes] = {}
        heard_bytes = 0
        page = await commander.request(sid, STATE_READ, StateRead(), StateHeld)
        point = page.point
        for _ in range(MAX_PAGES):
            held |= {each.key: bytes(each.body) for each in page.entities}
            heard_bytes += sum(len(each.body) + len(each.key.id) for each in page.entities)
            if len(held) >= MAX_STRAYS or heard_bytes >= MAX_STRAYS_BYTES:
                _log.warning("an agent claims more than any server has", sid=sid, told=page.total_count)
                return point, held
            if len(held) >= page.total_count or not page.entities:
                return point, held
            page = await commander.request(sid, STATE_READ, StateRead(offset=len(held)), StateHeld)
            if page.point != point:
                break
    return point, held
