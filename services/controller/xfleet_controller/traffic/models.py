"""The ledger. No foreign keys to live rows: bytes outlive what they belong to."""

from datetime import datetime
from typing import Any

from sqlalchemy import Index, LargeBinary, String, UniqueConstraint, text
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId, Json

ROOM_FOR_UPDATES = {"postgresql_with": {"fillfactor": 70}}
"""Rows that are added to all the time find room on their own page: PostgreSQL then leaves the indexes alone."""


class LedgerCursor(Base):
    """How far an epoch of a server is committed without holes; never deleted."""

    __tablename__ = "ledger_cursors"

    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(24), primary_key=True)
    floor: Mapped[int] = mapped_column(BigId, default=0)
    digest: Mapped[str] = mapped_column(String(64), default="")
    """Of batch `floor`."""
    instance: Mapped[str] = mapped_column(String(64), default="")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class LedgerKey(Base):
    """A committed batch above its epoch's floor: the exact key that makes redelivery harmless."""

    __tablename__ = "ledger_keys"

    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(24), primary_key=True)
    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(64))


class LedgerBody(Base):
    """A committed batch as it was sent, compressed; kept for roll-ups, `explain` and agents that forgot."""

    __tablename__ = "ledger_bodies"
    __table_args__ = (
        Index("ix_ledger_bodies_server_id_start_id", "server_id", "start_id"),
        Index(
            "ix_ledger_bodies_waiting",
            "server_id",
            "received_at",
            postgresql_where=text("NOT rolled_up"),
            sqlite_where=text("NOT rolled_up"),
        ),
        Index(
            "ix_ledger_bodies_kept",
            "received_at",
            "body_bytes",
            postgresql_where=text("body_bytes > 0"),
            sqlite_where=text("body_bytes > 0"),
        ),
    )

    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    epoch: Mapped[str] = mapped_column(String(24), primary_key=True)
    seq: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(64))
    start_id: Mapped[str] = mapped_column(String(64))
    from_at: Mapped[datetime]
    to_at: Mapped[datetime]
    received_at: Mapped[datetime] = mapped_column(index=True)
    rows_count: Mapped[int]
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    """zlib of the payload; None once the size cap took it."""
    body_bytes: Mapped[int] = mapped_column(default=0)
    """Size of `body`."""
    skipped: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Places of the rows that were set aside and do not count: {"clients": [...], "tags": [...]}."""
    rolled_up: Mapped[bool] = mapped_column(default=False)


class RejectedBatch(Base):
    """A batch or rows of it that the ledger would not take, kept raw and replayable."""

    __tablename__ = "rejected_batches"
    __table_args__ = (UniqueConstraint("sid", "reason", "digest"),)

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    server_id: Mapped[int | None] = mapped_column(BigId, index=True)
    sid: Mapped[str] = mapped_column(String(63))
    epoch: Mapped[str] = mapped_column(String(64), default="")
    seq: Mapped[int] = mapped_column(BigId, default=0)
    reason: Mapped[str] = mapped_column(String(40), index=True)
    """malformed, fork, foreign_inbound, impossible_bytes, unknown_server, …"""
    digest: Mapped[str] = mapped_column(String(64))
    """SHA-256 of the message it came in: the same one sent again is kept once."""
    detail: Mapped[str] = mapped_column(default="")
    payload: Mapped[bytes] = mapped_column(LargeBinary)
    received_at: Mapped[datetime]
    replayed_at: Mapped[datetime | None]


class LedgerGap(Base):
    """Time whose bytes nobody can know: never doubled, always shown."""

    __tablename__ = "ledger_gaps"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    server_id: Mapped[int] = mapped_column(BigId, index=True)
    epoch: Mapped[str] = mapped_column(String(24))
    seq: Mapped[int] = mapped_column(BigId)
    reason: Mapped[str] = mapped_column(String(30))
    start_id: Mapped[str] = mapped_column(String(64), default="")
    from_at: Mapped[datetime]
    to_at: Mapped[datetime]


class ClientTotal(Base):
    """A client's bytes over all servers: for ever, and since its last reset."""

    __tablename__ = "client_totals"
    __table_args__ = ROOM_FOR_UPDATES

    client_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    down_bytes: Mapped[int] = mapped_column(BigId, default=0)
    period_up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    period_down_bytes: Mapped[int] = mapped_column(BigId, default=0)
    period_started_at: Mapped[datetime | None] = mapped_column(index=True)
    """Of the last reset; rows that ended before it count in history only."""
    last_online_at: Mapped[datetime | None]


class ClientInboundTotal(Base):
    """A client's bytes on one inbound of one server."""

    __tablename__ = "client_inbound_totals"
    __table_args__ = ROOM_FOR_UPDATES

    client_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    inbound_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    server_id: Mapped[int] = mapped_column(BigId, index=True)
    up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    down_bytes: Mapped[int] = mapped_column(BigId, default=0)


class TagTotal(Base):
    """Bytes of an inbound or outbound of a server, as on the wire."""

    __tablename__ = "tag_totals"

    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    direction: Mapped[str] = mapped_column(String(10), primary_key=True)
    tag: Mapped[str] = mapped_column(String(100), primary_key=True)
    up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    down_bytes: Mapped[int] = mapped_column(BigId, default=0)


class TrafficHourly(Base):
    """Bytes of a client on an inbound of a server in a UTC hour; built from stored bodies."""

    __tablename__ = "traffic_hourly"
    __table_args__ = (Index("ix_traffic_hourly_server_id_hour", "server_id", "hour"), ROOM_FOR_UPDATES)

    client_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    inbound_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Unix time // 3600."""
    server_id: Mapped[int] = mapped_column(BigId)
    up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    down_bytes: Mapped[int] = mapped_column(BigId, default=0)


class TrafficDaily(Base):
    """As hourly, per UTC day."""

    __tablename__ = "traffic_daily"
    __table_args__ = (Index("ix_traffic_daily_server_id_day", "server_id", "day"), ROOM_FOR_UPDATES)

    client_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    inbound_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    day: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    """Unix time // 86400."""
    server_id: Mapped[int] = mapped_column(BigId)
    up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    down_bytes: Mapped[int] = mapped_column(BigId, default=0)


class OutboundTraffic(Base):
    """Bytes of an outbound of a server in a UTC hour."""

    __tablename__ = "outbound_traffic"

    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    tag: Mapped[str] = mapped_column(String(100), primary_key=True)
    hour: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    down_bytes: Mapped[int] = mapped_column(BigId, default=0)


class ServerMinute(Base):
    """A server's client bytes in one minute, for the live chart; kept about a day."""

    __tablename__ = "server_minutes"

    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    minute: Mapped[int] = mapped_column(primary_key=True, autoincrement=False, index=True)
    """Unix time // 60 of the reading."""
    up_bytes: Mapped[int] = mapped_column(BigId, default=0)
    down_bytes: Mapped[int] = mapped_column(BigId, default=0)


class LimitAct(Base):
    """An automatic act, once per client, rule and period."""

    __tablename__ = "limit_acts"

    client_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    rule: Mapped[str] = mapped_column(String(20), primary_key=True)
    period_key: Mapped[str] = mapped_column(String(40), primary_key=True)
    """What makes the period unique: its start, or the limit that was passed."""
    acted_at: Mapped[datetime]
    details: Mapped[dict[str, Any]] = mapped_column(default=dict)


class AllowanceRow(Base):
    """The last allowance decided for a client on a server."""

    __tablename__ = "allowances"

    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    client_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    serial: Mapped[int] = mapped_column(BigId, default=0)
    allowance_bytes: Mapped[int | None] = mapped_column(BigId)
    decided_at: Mapped[datetime]


class ClientAddress(Base):
    """A source address of a client, and which server saw it."""

    __tablename__ = "client_addresses"

    client_ref: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    address: Mapped[str] = mapped_column(String(64), primary_key=True)
    server_id: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    first_seen_at: Mapped[datetime]
    last_seen_at: Mapped[datetime] = mapped_column(index=True)
