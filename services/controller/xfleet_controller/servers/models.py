"""Servers, the desired state of each as entities, and the points it went through."""

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import ForeignKey, Index, LargeBinary, Numeric, String
from sqlalchemy.orm import Mapped, mapped_column

from xfleet_controller.tables import Base, BigId, Json


class Server(Base):
    """A managed VPN server."""

    __tablename__ = "servers"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    slug: Mapped[str] = mapped_column(String(63), unique=True)
    """Its name in subjects: immutable, never reused."""
    name: Mapped[str] = mapped_column(String(100), unique=True)
    public_address: Mapped[str] = mapped_column(String(255), default="")
    region: Mapped[str] = mapped_column(String(100), default="")
    tags: Mapped[list[str]] = mapped_column(default=list)
    notes: Mapped[str] = mapped_column(default="")
    status: Mapped[str] = mapped_column(String(20), default="pending", index=True)
    """pending, online, stale, offline, retiring."""
    last_error: Mapped[str] = mapped_column(default="")
    last_seen_at: Mapped[datetime | None]
    instance: Mapped[str] = mapped_column(String(64), default="")
    agent_version: Mapped[str] = mapped_column(String(50), default="")
    xray_version: Mapped[str] = mapped_column(String(50), default="")
    os_info: Mapped[dict[str, Any]] = mapped_column(default=dict)
    reported_address: Mapped[str] = mapped_column(String(64), default="")
    """The default-route address its agent told; used in links while `public_address` is empty."""
    enabled: Mapped[bool] = mapped_column(default=True, index=True)
    mode: Mapped[str] = mapped_column(String(20), default="active")
    """active, drain, maintenance."""
    retiring_at: Mapped[datetime | None]
    """Set when it is being deleted: until its agent has taken everything down and told its last bytes."""
    clock_offset_ms: Mapped[int | None] = mapped_column(BigId)
    """What its agent adds to its own clock, as it last told."""
    credentials_expire_at: Mapped[datetime | None]
    """When the agent's certificate or JWT expires, whichever comes first, as it last told."""
    last_beat: Mapped[Any | None] = mapped_column(Json)
    """Host figures and uptimes of the last heartbeat that was written down, for when nobody is heard."""
    drift_at: Mapped[datetime | None]
    """When its agent last found that Xray ran something else than it should, and mended it."""
    replaced: Mapped[Any | None] = mapped_column(Json)
    """What became of the last replacement of its machine, in the form of `servers.replacing.Replaced`."""
    allow_private_destinations: Mapped[bool] = mapped_column(default=False)
    traffic_factor: Mapped[Decimal] = mapped_column(Numeric(8, 4), default=Decimal(1))
    version: Mapped[int] = mapped_column(default=1)
    """Grows with every edit by a person: who edits an older one is told."""
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]


class ServerRevision(Base):
    """Where a server should be and where it is; writers lock this row first."""

    __tablename__ = "server_revisions"

    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    desired_revision: Mapped[int] = mapped_column(BigId, default=0)
    desired_digest: Mapped[str] = mapped_column(String(64))
    wanted_revision: Mapped[int] = mapped_column(BigId, default=0)
    """What the agent holds, as it last told."""
    wanted_digest: Mapped[str] = mapped_column(String(64), default="")
    applied_revision: Mapped[int] = mapped_column(BigId, default=0)
    degraded: Mapped[list[Any]] = mapped_column(Json, default=list)
    """Entities refused at the last apply, as objects of `apply.Degraded`."""
    refused_digest: Mapped[str] = mapped_column(String(64), default="")
    """A digest the agent reported degraded; it is not sent again."""
    lease_owner: Mapped[str] = mapped_column(String(64), default="")
    lease_fence: Mapped[int] = mapped_column(BigId, default=0)
    lease_until_at: Mapped[datetime | None]
    changed_at: Mapped[datetime]


class StateEntity(Base):
    """One entity of a server's desired state; a removed one stays as a mark until all known bases are past it."""

    __tablename__ = "state_entities"
    __table_args__ = (Index("ix_state_entities_server_id_revision", "server_id", "revision"),)

    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    entity_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the body; empty when removed."""
    body_sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    revision: Mapped[int] = mapped_column(BigId)
    """At which it became what it is."""
    removed: Mapped[bool] = mapped_column(default=False)


class StatePointRow(Base):
    """A revision and its digest, so that an agent's base can be recognised."""

    __tablename__ = "state_points"

    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    revision: Mapped[int] = mapped_column(BigId, primary_key=True, autoincrement=False)
    digest: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[datetime]


class StateChunk(Base):
    """A chunk of an offered snapshot, asked for by its SHA-256 from whichever controller answers."""

    __tablename__ = "state_chunks"

    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    body_sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(index=True)


class ConfigVersion(Base):
    """A server's configuration without clients and secrets as it was at a revision, to look at and go back to."""

    __tablename__ = "config_versions"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    """Not the revision: a remark or a switched-off inbound changes without one."""
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), index=True)
    revision: Mapped[int] = mapped_column(BigId)
    """The desired revision at that time."""
    operation: Mapped[str] = mapped_column(String(50), default="")
    actor: Mapped[str] = mapped_column(String(100), default="")
    body: Mapped[Any] = mapped_column(Json)
    """Inbounds, outbounds, rules and settings in the form of `servers.versions.ConfigForm`."""
    created_at: Mapped[datetime]


class StrayEntity(Base):
    """An entity that only the agent knew when it met a restored database: kept for adoption, not wiped silently."""

    __tablename__ = "stray_entities"

    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    entity_id: Mapped[str] = mapped_column(String(100), primary_key=True)
    body_sealed: Mapped[bytes] = mapped_column(LargeBinary)
    found_at: Mapped[datetime]


class Rollout(Base):
    """An upgrade of many servers in waves: the next wave starts when the one before is healthy."""

    __tablename__ = "rollouts"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    verb: Mapped[str] = mapped_column(String(50))
    """agent.update, xray.install or geofiles.update."""
    body: Mapped[Any] = mapped_column(Json)
    status: Mapped[str] = mapped_column(String(20), index=True)
    """running, paused, completed, failed, cancelled."""
    error: Mapped[str] = mapped_column(default="")
    actor: Mapped[str] = mapped_column(String(100), default="")
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
    completed_at: Mapped[datetime | None]


class RolloutServer(Base):
    """One server of a rollout."""

    __tablename__ = "rollout_servers"

    rollout_id: Mapped[int] = mapped_column(ForeignKey("rollouts.id", ondelete="CASCADE"), primary_key=True)
    server_id: Mapped[int] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), primary_key=True)
    wave: Mapped[int]
    status: Mapped[str] = mapped_column(String(20), default="waiting")
    """waiting, running, watching, healthy, failed, skipped."""
    task_id: Mapped[int | None] = mapped_column(BigId)
    version_before: Mapped[str] = mapped_column(String(50), default="")
    error: Mapped[str] = mapped_column(default="")
    started_at: Mapped[datetime | None]
    completed_at: Mapped[datetime | None]


class Profile(Base):
    """Outbounds, routing or DNS shared by servers."""

    __tablename__ = "profiles"

    id: Mapped[int] = mapped_column(BigId, primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), index=True)
    """outbound, routing, dns."""
    name: Mapped[str] = mapped_column(String(100), unique=True)
    server_id: Mapped[int | None] = mapped_column(ForeignKey("servers.id", ondelete="CASCADE"), index=True)
    """Set when it belongs to one server only."""
    body_sealed: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime]
    updated_at: Mapped[datetime]
