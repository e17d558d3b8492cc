"""The ledger's rules, without a database: which batches of a fetch are new, which rows count, what is added where."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

import msgspec

from xfleet_contracts import codec
from xfleet_contracts.traffic import ClientRow, TagRow
from xfleet_controller.traffic.reading import Parsed, Reading, Unreadable, inbound_of

FUTURE_SLACK = timedelta(seconds=60)
OLDEST_HOUR = timedelta(days=400)
NEWEST_HOUR = timedelta(hours=2)
EARLIEST = datetime(2020, 1, 1, tzinfo=UTC)
MAX_SEQ_AHEAD = 1_000_000

CursorKey = tuple[int, str]
"""Server id and epoch."""
BatchKey = tuple[int, str, int]
"""Server id, epoch and seq."""


class LedgerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator can decide about the ledger."""

    line_rate_bits_s: int = 100 * 10**9
    """Nobody's network card is faster: rows beyond it are set aside."""
    interval_slack_s: float = 60.0
    """Added to a batch's interval before the line rate is applied to it."""
    fetch_count: int = 64
    """Messages in one transaction at most."""
    bodies_max_bytes: int = 2 * 1024**3
    """Stored batches; beyond it the oldest rolled-up ones lose their body."""
    bodies_keep_days: int = 30
    """How long the names of batches without a body are kept."""
    rejected_max_bytes: int = 256 * 1024**2
    """Rejected batches; beyond it the oldest go."""
    rollup_interval_s: float = 30.0
    minutes_keep_hours: int = 26


class ServerFact(msgspec.Struct, frozen=True):
    """What the ledger has to know about a server."""

    id: int
    created_at: datetime


class Cursor(msgspec.Struct, frozen=True):
    """How far an epoch is committed without holes."""

    floor: int
    digest: str


class Known(msgspec.Struct, frozen=True):
    """What the transaction found before it decides."""

    servers: Mapping[str, ServerFact]
    inbound_servers: Mapping[int, int]
    """Server of every inbound that is or was."""
    clients: set[int]
    """Clients that are or were."""
    cursors: Mapping[CursorKey, Cursor]
    digests: Mapping[BatchKey, str]
    """Of committed batches among those at hand."""
    above: Mapping[CursorKey, Mapping[int, str]]
    """Committed batches above the floor, with their digests."""
    ended_at: Mapping[BatchKey, datetime]
    """Ends of the committed predecessors of the batches at hand."""


class Rejected(msgspec.Struct, frozen=True):
    """What is set aside, and why."""

    sid: str
    server_id: int | None
    reason: str
    detail: str
    payload: bytes
    digest: str
    epoch: str = ""
    seq: int = 0


class Forked(msgspec.Struct, frozen=True):
    """A number that was already taken by another body."""

    sid: str
    epoch: str
    seq: int
    committed_digest: str
    refused_digest: str


class Accepted(msgspec.Struct, frozen=True):
    """A batch that becomes part of the ledger, with the rows of it that count."""

    server_id: int
    reading: Reading
    from_at: datetime
    to_at: datetime
    clients: Sequence[ClientRow]
    tags: Sequence[TagRow]
    skipped: dict[str, list[int]] | None


class Sums(msgspec.Struct):
    """What a commit adds, merged per key."""

    client_up: dict[int, int] = {}
    client_down: dict[int, int] = {}
    client_seen_ms: dict[int, int] = {}
    tags: dict[tuple[int, str, str], list[int]] = {}
    minutes: dict[tuple[int, int], list[int]] = {}


class Commit(msgspec.Struct):
    """Everything one transaction does."""

    accepted: list[Accepted] = []
    rejected: list[Rejected] = []
    forks: list[Forked] = []
    sums: Sums = msgspec.field(default_factory=Sums)
    cursors: dict[CursorKey, Cursor] = {}
    """Where the cursors of accepted batches stand afterwards."""
    closed: list[CursorKey] = []
    """Cursors that moved over batches committed earlier: a hole is closed."""
    seen: dict[CursorKey, str] = {}
    """Slug by cursor, of all batches that were readable: their receipts are due."""
    duplicates_count: int = 0

    def floor_of(self, key: CursorKey) -> int:
        """The floor after this commit."""
        return self.cursors[key].floor


def plan_commit(readings: Iterable[Reading], known: Known, settings: LedgerSettings, now: datetime) -> Commit:
    """What to do with these batches, given what is known. Pure."""
    commit = Commit()
    taken = dict(known.digests)
    ended = dict(known.ended_at)
    for reading in readings:
        server = known.servers.get(reading.sid)
        if server is None:
            commit.rejected.append(_set_aside(reading, None, "unknown_server", "no server has this name"))
            continue
        key = (server.id, *reading.key)
        cursor = known.cursors.get(key[:2], Cursor(0, ""))
        commit.seen[key[:2]] = reading.sid
        if _is_taken(commit, reading, key, cursor, taken):
            continue
        if key[2] > cursor.floor + MAX_SEQ_AHEAD:
            commit.rejected.append(_set_aside(reading, server.id, "impossible_seq", f"the floor is {cursor.floor}"))
            continue
        accepted = _accept(commit, reading, server, ended.get((*key[:2], key[2] - 1)), known, settings, now)
        if reading.refused is not None:
            commit.rejected.append(_set_aside(reading, server.id, reading.refused.reason, reading.refused.detail))
        taken[key] = reading.digest
        ended[key] = accepted.to_at
        commit.accepted.append(accepted)
    _add_up(commit)
    _advance(commit, known)
    return commit


def refuse(sid: str, payload: bytes, why: Unreadable) -> Rejected:
    """An unreadable payload, set aside."""
    return Rejected(sid, None, why.reason, why.detail, payload, codec.sha256_hex(payload), why.epoch, why.seq)


def contributions(accepted: Iterable[Accepted], started_at: Mapping[int, datetime]) -> dict[int, tuple[int, int]]:
    """Up and down bytes of these clients in batches that ended before the moment given for each."""
    early: dict[int, tuple[int, int]] = {}
    for batch in accepted if started_at else ():
        for row in batch.clients:
            moment = started_at.get(row.client)
            if moment is not None and batch.to_at < moment:
                up, down = early.get(row.client, (0, 0))
                early[row.client] = up + row.up_bytes, down + row.down_bytes
    return early


def counted(
    parsed: Parsed, skipped: Mapping[str, Sequence[int]] | None
) -> tuple[Sequence[ClientRow], Sequence[TagRow]]:
    """The rows of a committed batch that count."""
    if skipped is None:
        return cast("Sequence[ClientRow]", parsed.clients), cast("Sequence[TagRow]", parsed.tags)
    no_clients, no_tags = set(skipped.get("clients", ())), set(skipped.get("tags", ()))
    clients = [row for place, row in enumerate(parsed.clients) if row is not None and place not in no_clients]
    tags = [row for place, row in enumerate(parsed.tags) if row is not None and place not in no_tags]
    return clients, tags


def _is_taken(commit: Commit, reading: Reading, key: BatchKey, cursor: Cursor, taken: Mapping[BatchKey, str]) -> bool:
    committed = cursor.digest if key[2] == cursor.floor else taken.get(key)
    if committed is None and key[2] > cursor.floor:
        return False
    if committed in (None, reading.digest):
        commit.duplicates_count += 1
        return True
    if reading.refused is not None:
        commit.rejected.append(_set_aside(reading, key[0], reading.refused.reason, reading.refused.detail))
        return True
    commit.forks.append(Forked(reading.sid, key[1], key[2], committed, reading.digest))
    commit.rejected.append(_set_aside(reading, key[0], "fork", f"committed as {committed}"))
    return True


def _accept(
    commit: Commit,
    reading: Reading,
    server: ServerFact,
    previous_end: datetime | None,
    known: Known,
    settings: LedgerSettings,
    now: datetime,
) -> Accepted:
    from_at, to_at = interval(reading, previous_end)
    seconds = (to_at - max(from_at, min(server.created_at, to_at))).total_seconds() + settings.interval_slack_s
    judge = _Judge(server.id, known, int(settings.line_rate_bits_s / 8 * seconds), now)
    clients, bad_clients = judge.clients(reading)
    tags, bad_tags = judge.tags(reading.parsed.tags)
    if bad_clients or bad_tags:
        commit.rejected.extend(_rows_set_aside(reading, server.id, bad_clients, bad_tags))
    skipped = {"clients": sorted(bad_clients), "tags": sorted(bad_tags)} if bad_clients or bad_tags else None
    return Accepted(server.id, reading, from_at, to_at, clients, tags, skipped)


def interval(reading: Reading, previous_end: datetime | None) -> tuple[datetime, datetime]:
    """The batch's interval within what can be: not after the broker's time, its end not before its predecessor's."""
    latest = reading.stored_at + FUTURE_SLACK
    to_at = max(moment(reading.parsed.head.to_at_ms, latest), previous_end or EARLIEST)
    return min(moment(reading.parsed.head.from_at_ms, latest), to_at), to_at


def moment(unix_ms: int, latest: datetime) -> datetime:
    """The moment, no later than `latest` and no earlier than 2020."""
    if unix_ms >= latest.timestamp() * 1000:
        return latest
    return max(EARLIEST, datetime.fromtimestamp(max(unix_ms, 0) / 1000, UTC))


class _Judge:
    """Decides row by row; remembers how much the batch has already claimed."""

    def __init__(self, server_id: int, known: Known, most_bytes: int, now: datetime) -> None:
        self._server_id = server_id
        self._known = known
        self._most_bytes = most_bytes
        self._first_hour = int((now - OLDEST_HOUR).timestamp()) // 3600
        self._last_hour = int((now + NEWEST_HOUR).timestamp()) // 3600

    def clients(self, reading: Reading) -> tuple[Sequence[ClientRow], dict[int, str]]:
        rows = reading.parsed.clients
        whole = self._all_good(rows, reading.clients)
        if whole is not None:
            return whole, {}
        good: list[ClientRow] = []
        bad: dict[int, str] = {}
        up_left = down_left = self._most_bytes
        owners, clients, server_id = self._known.inbound_servers, self._known.clients, self._server_id
        for place, row in enumerate(rows):
            if row is None:
                bad[place] = "malformed"
            elif owners.get(row.inbound) != server_id:
                bad[place] = "foreign_inbound"
            elif row.client not in clients:
                bad[place] = "unknown_client"
            elif not self._first_hour <= row.hour <= self._last_hour:
                bad[place] = "impossible_hour"
            elif row.up_bytes > up_left or row.down_bytes > down_left:
                bad[place] = "impossible_bytes"
            else:
                up_left -= row.up_bytes
                down_left -= row.down_bytes
                good.append(row)
        return good, bad

    def _all_good(self, rows: Sequence[ClientRow | None], refs: Sequence[int]) -> Sequence[ClientRow] | None:
        """The rows when every one counts, found without looking at them one by one; None: look."""
        if len(refs) != len(rows):
            return None
        every = cast("Sequence[ClientRow]", rows)
        hours = {row.hour for row in every}
        fine = (
            all(self._known.inbound_servers.get(ref) == self._server_id for ref in {row.inbound for row in every})
            and (not hours or (self._first_hour <= min(hours) and max(hours) <= self._last_hour))
            and max(sum([row.up_bytes for row in every]), sum([row.down_bytes for row in every])) <= self._most_bytes
            and self._known.clients.issuperset(refs)
        )
        return every if fine else None

    def tags(self, rows: Sequence[TagRow | None]) -> tuple[list[TagRow], dict[int, str]]:
        good: list[TagRow] = []
        bad: dict[int, str] = {}
        for place, row in enumerate(rows):
            if row is None:
                bad[place] = "malformed"
            elif row.direction == "inbound" and not self._owns(row.tag):
                bad[place] = "foreign_inbound"
            elif not self._first_hour <= row.hour <= self._last_hour:
                bad[place] = "impossible_hour"
            elif max(row.up_bytes, row.down_bytes) > self._most_bytes:
                bad[place] = "impossible_bytes"
            else:
                good.append(row)
        return good, bad

    def _owns(self, tag: str) -> bool:
        number = inbound_of(tag)
        return number is not None and self._known.inbound_servers.get(number) == self._server_id


def _set_aside(reading: Reading, server_id: int | None, reason: str, detail: str) -> Rejected:
    return Rejected(reading.sid, server_id, reason, detail, reading.payload, reading.digest, *reading.key)


def _rows_set_aside(
    reading: Reading, server_id: int, bad_clients: Mapping[int, str], bad_tags: Mapping[int, str]
) -> list[Rejected]:
    raw = msgspec.json.decode(reading.payload)
    found = []
    for reason in sorted({*bad_clients.values(), *bad_tags.values()}):
        rows = {
            "clients": [raw["clients"][place] for place, why in bad_clients.items() if why == reason],
            "tags": [raw["tags"][place] for place, why in bad_tags.items() if why == reason],
        }
        count = len(rows["clients"]) + len(rows["tags"])
        found.append(
            Rejected(
                reading.sid,
                server_id,
                reason,
                f"{count} rows; the others count",
                codec.canonical(rows),
                reading.digest,
                *reading.key,
            )
        )
    return found


def _add_up(commit: Commit) -> None:
    sums = commit.sums
    for batch in sorted(commit.accepted, key=lambda each: each.to_at):
        to_ms = int(batch.to_at.timestamp() * 1000)
        refs = batch.reading.clients if batch.skipped is None else [row.client for row in batch.clients]
        up, down = [row.up_bytes for row in batch.clients], [row.down_bytes for row in batch.clients]
        _add_to(sums.client_up, refs, up)
        _add_to(sums.client_down, refs, down)
        sums.client_seen_ms.update(dict.fromkeys(refs, to_ms))
        for tag in batch.tags:
            both = sums.tags.setdefault((batch.server_id, tag.direction, tag.tag), [0, 0])
            both[0] += tag.up_bytes
            both[1] += tag.down_bytes
        both = sums.minutes.setdefault((batch.server_id, to_ms // 60_000), [0, 0])
        both[0] += sum(up)
        both[1] += sum(down)


def _add_to(sums: dict[int, int], refs: Sequence[int], figures: Sequence[int]) -> None:
    if len(set(refs)) == len(refs) and sums.keys().isdisjoint(refs):
        sums.update(zip(refs, figures, strict=True))
        return
    for ref, figure in zip(refs, figures, strict=True):
        sums[ref] = sums.get(ref, 0) + figure


def _advance(commit: Commit, known: Known) -> None:
    committed: dict[CursorKey, dict[int, str]] = {}
    for batch in commit.accepted:
        epoch, seq = batch.reading.key
        committed.setdefault((batch.server_id, epoch), {})[seq] = batch.reading.digest
    for key, new in committed.items():
        cursor = known.cursors.get(key, Cursor(0, ""))
        floor, digest = cursor.floor, cursor.digest
        earlier = known.above.get(key, {})
        above = {**earlier, **new}
        while floor + 1 in above:
            floor += 1
            digest = above[floor]
        commit.cursors[key] = Cursor(floor, digest)
        if earlier and floor > cursor.floor:
            commit.closed.append(key)
