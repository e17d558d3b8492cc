"""Expand: the fleet: retiring servers, history to go back to, rollouts, recovery codes.

New columns have defaults in the database, because the release before runs on this form too.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")
MOMENT = sa.DateTime(timezone=True)

revision = "0002_fleet"
down_revision = "0001_first_release"


def upgrade() -> None:
    _servers()
    _rollouts()
    _people()
    op.create_index(op.f("ix_server_minutes_minute"), "server_minutes", ["minute"])


def _servers() -> None:
    op.add_column("servers", sa.Column("retiring_at", MOMENT))
    op.add_column("servers", sa.Column("clock_offset_ms", BIG))
    op.add_column("servers", sa.Column("credentials_expire_at", MOMENT))
    op.add_column("servers", sa.Column("last_beat", JSON))
    op.add_column("servers", sa.Column("drift_at", MOMENT))
    op.add_column("servers", sa.Column("replaced", JSON))
    op.add_column("servers", sa.Column("version", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("server_tasks", sa.Column("verb", sa.String(50), nullable=False, server_default=""))
    op.add_column("server_tasks", sa.Column("order_sealed", sa.LargeBinary()))
    op.add_column("certificates", sa.Column("source", sa.String(20), nullable=False, server_default="enroll"))
    op.add_column("enrollment_tokens", sa.Column("replaces", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.add_column("enrollment_tokens", sa.Column("replaces_address", sa.String(255), nullable=False, server_default=""))
    op.create_table(
        "config_versions",
        sa.Column("id", BIG, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("revision", BIG, nullable=False),
        sa.Column("operation", sa.String(50), nullable=False),
        sa.Column("actor", sa.String(100), nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_config_versions_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_config_versions")),
    )
    op.create_index(op.f("ix_config_versions_server_id"), "config_versions", ["server_id"])
    op.create_table(
        "stray_entities",
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("entity_id", sa.String(100), nullable=False),
        sa.Column("body_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("found_at", MOMENT, nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_stray_entities_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", "kind", "entity_id", name=op.f("pk_stray_entities")),
    )


def _rollouts() -> None:
    op.create_table(
        "rollouts",
        sa.Column("id", BIG, nullable=False),
        sa.Column("verb", sa.String(50), nullable=False),
        sa.Column("body", JSON, nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("actor", sa.String(100), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("updated_at", MOMENT, nullable=False),
        sa.Column("completed_at", MOMENT, nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rollouts")),
    )
    op.create_index(op.f("ix_rollouts_status"), "rollouts", ["status"])
    op.create_table(
        "rollout_servers",
        sa.Column("rollout_id", BIG, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("wave", sa.Integer(), nullable=False),
        sa.Column("status", sa.String(20), nullable=False),
        sa.Column("task_id", BIG, nullable=True),
        sa.Column("version_before", sa.String(50), nullable=False),
        sa.Column("error", sa.String(), nullable=False),
        sa.Column("started_at", MOMENT, nullable=True),
        sa.Column("completed_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["rollout_id"], ["rollouts.id"], name=op.f("fk_rollout_servers_rollout_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_rollout_servers_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("rollout_id", "server_id", name=op.f("pk_rollout_servers")),
    )


def _people() -> None:
    op.add_column("admins", sa.Column("totp_confirmed_at", MOMENT))
    op.add_column("admins", sa.Column("last_login_at", MOMENT))
    op.add_column("admins", sa.Column("invite_sha256", sa.String(64)))
    op.add_column("admins", sa.Column("invite_expires_at", MOMENT))
    op.create_index(op.f("ix_admins_invite_sha256"), "admins", ["invite_sha256"], unique=True)
    op.create_table(
        "recovery_codes",
        sa.Column("admin_id", BIG, nullable=False),
        sa.Column("code_sha256", sa.String(64), nullable=False),
        sa.Column("created_at", MOMENT, nullable=False),
        sa.Column("used_at", MOMENT, nullable=True),
        sa.ForeignKeyConstraint(
            ["admin_id"], ["admins.id"], name=op.f("fk_recovery_codes_admin_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("admin_id", "code_sha256", name=op.f("pk_recovery_codes")),
    )
