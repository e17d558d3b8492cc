"""Expand: the tables of the first release."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON().with_variant(postgresql.JSONB(), "postgresql")

revision = "0001_first_release"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "admins",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("name_key", sa.String(length=64), nullable=False),
        sa.Column("password_hash", sa.String(length=300), nullable=False),
        sa.Column("role", sa.String(length=20), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("totp_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("totp_last_counter", BIG, nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("password_changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_admins")),
        sa.UniqueConstraint("name_key", name=op.f("uq_admins_name_key")),
    )
    op.create_table(
        "allowances",
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("client_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("serial", BIG, nullable=False),
        sa.Column("allowance_bytes", BIG, nullable=True),
        sa.Column("decided_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server_id", "client_ref", name=op.f("pk_allowances")),
    )
    op.create_table(
        "audit_log",
        sa.Column("id", BIG, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("action", sa.String(length=60), nullable=False),
        sa.Column("object_kind", sa.String(length=30), nullable=False),
        sa.Column("object_id", sa.String(length=64), nullable=False),
        sa.Column("object_name", sa.String(length=200), nullable=False),
        sa.Column("before", JSON, nullable=True),
        sa.Column("after", JSON, nullable=True),
        sa.Column("trace_id", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_audit_log")),
    )
    with op.batch_alter_table("audit_log", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_audit_log_action"), ["action"], unique=False)
        batch_op.create_index(batch_op.f("ix_audit_log_at"), ["at"], unique=False)

    op.create_table(
        "client_addresses",
        sa.Column("client_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("first_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("client_ref", "address", "server_id", name=op.f("pk_client_addresses")),
    )
    with op.batch_alter_table("client_addresses", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_client_addresses_last_seen_at"), ["last_seen_at"], unique=False)

    op.create_table(
        "client_inbound_totals",
        sa.Column("client_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("inbound_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("up_bytes", BIG, nullable=False),
        sa.Column("down_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("client_ref", "inbound_ref", name=op.f("pk_client_inbound_totals")),
        postgresql_with={"fillfactor": 70},
    )
    with op.batch_alter_table("client_inbound_totals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_client_inbound_totals_server_id"), ["server_id"], unique=False)

    op.create_table(
        "client_totals",
        sa.Column("client_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("up_bytes", BIG, nullable=False),
        sa.Column("down_bytes", BIG, nullable=False),
        sa.Column("period_up_bytes", BIG, nullable=False),
        sa.Column("period_down_bytes", BIG, nullable=False),
        sa.Column("period_started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("last_online_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("client_ref", name=op.f("pk_client_totals")),
        postgresql_with={"fillfactor": 70},
    )
    with op.batch_alter_table("client_totals", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_client_totals_period_started_at"), ["period_started_at"], unique=False)

    op.create_table(
        "fleet_secrets",
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_fleet_secrets")),
    )
    op.create_table(
        "groups",
        sa.Column("id", BIG, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("total_bytes", BIG, nullable=True),
        sa.Column("options", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_groups")),
        sa.UniqueConstraint("name", name=op.f("uq_groups_name")),
    )
    op.create_table(
        "ledger_bodies",
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.String(length=24), nullable=False),
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("start_id", sa.String(length=64), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("rows_count", sa.Integer(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=True),
        sa.Column("body_bytes", sa.Integer(), nullable=False),
        sa.Column("skipped", JSON, nullable=True),
        sa.Column("rolled_up", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("server_id", "epoch", "seq", name=op.f("pk_ledger_bodies")),
    )
    with op.batch_alter_table("ledger_bodies", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ledger_bodies_received_at"), ["received_at"], unique=False)
        batch_op.create_index(
            "ix_ledger_bodies_kept",
            ["received_at", "body_bytes"],
            unique=False,
            postgresql_where=sa.text("body_bytes > 0"),
            sqlite_where=sa.text("body_bytes > 0"),
        )
        batch_op.create_index("ix_ledger_bodies_server_id_start_id", ["server_id", "start_id"], unique=False)
        batch_op.create_index(
            "ix_ledger_bodies_waiting",
            ["server_id", "received_at"],
            unique=False,
            postgresql_where=sa.text("NOT rolled_up"),
            sqlite_where=sa.text("NOT rolled_up"),
        )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE ledger_bodies ALTER COLUMN body SET STORAGE EXTERNAL")

    op.create_table(
        "ledger_cursors",
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.String(length=24), nullable=False),
        sa.Column("floor", BIG, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("instance", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("server_id", "epoch", name=op.f("pk_ledger_cursors")),
    )
    op.create_table(
        "ledger_gaps",
        sa.Column("id", BIG, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("epoch", sa.String(length=24), nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("reason", sa.String(length=30), nullable=False),
        sa.Column("start_id", sa.String(length=64), nullable=False),
        sa.Column("from_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("to_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_ledger_gaps")),
    )
    with op.batch_alter_table("ledger_gaps", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_ledger_gaps_server_id"), ["server_id"], unique=False)

    op.create_table(
        "ledger_keys",
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.String(length=24), nullable=False),
        sa.Column("seq", BIG, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.PrimaryKeyConstraint("server_id", "epoch", "seq", name=op.f("pk_ledger_keys")),
    )
    op.create_table(
        "limit_acts",
        sa.Column("client_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("rule", sa.String(length=20), nullable=False),
        sa.Column("period_key", sa.String(length=40), nullable=False),
        sa.Column("acted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("details", JSON, nullable=False),
        sa.PrimaryKeyConstraint("client_ref", "rule", "period_key", name=op.f("pk_limit_acts")),
    )
    op.create_table(
        "login_throttles",
        sa.Column("key", sa.String(length=200), nullable=False),
        sa.Column("failures_count", sa.Integer(), nullable=False),
        sa.Column("blocked_until_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_login_throttles")),
    )
    with op.batch_alter_table("login_throttles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_login_throttles_updated_at"), ["updated_at"], unique=False)

    op.create_table(
        "outbound_traffic",
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("tag", sa.String(length=100), nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("up_bytes", BIG, nullable=False),
        sa.Column("down_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("server_id", "tag", "hour", name=op.f("pk_outbound_traffic")),
    )
    op.create_table(
        "outbox",
        sa.Column("id", BIG, nullable=False),
        sa.Column("topic", sa.String(length=20), nullable=False),
        sa.Column("server_id", BIG, nullable=True),
        sa.Column("payload", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("attempts_count", sa.Integer(), nullable=False),
        sa.Column("not_before_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
    )
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.create_index("ix_outbox_topic_id", ["topic", "id"], unique=False)

    op.create_table(
        "rejected_batches",
        sa.Column("id", BIG, nullable=False),
        sa.Column("server_id", BIG, nullable=True),
        sa.Column("sid", sa.String(length=63), nullable=False),
        sa.Column("epoch", sa.String(length=64), nullable=False),
        sa.Column("seq", BIG, nullable=False),
        sa.Column("reason", sa.String(length=40), nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("detail", sa.String(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("replayed_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_rejected_batches")),
        sa.UniqueConstraint("sid", "reason", "digest", name=op.f("uq_rejected_batches_sid_reason_digest")),
    )
    with op.batch_alter_table("rejected_batches", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_rejected_batches_reason"), ["reason"], unique=False)
        batch_op.create_index(batch_op.f("ix_rejected_batches_server_id"), ["server_id"], unique=False)

    op.create_table(
        "revocations",
        sa.Column("nkey", sa.String(length=64), nullable=False),
        sa.Column("server_id", BIG, nullable=True),
        sa.Column("reason", sa.String(length=200), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.PrimaryKeyConstraint("nkey", name=op.f("pk_revocations")),
    )
    op.create_table(
        "server_minutes",
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("minute", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("up_bytes", BIG, nullable=False),
        sa.Column("down_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("server_id", "minute", name=op.f("pk_server_minutes")),
    )
    op.create_table(
        "servers",
        sa.Column("id", BIG, nullable=False),
        sa.Column("slug", sa.String(length=63), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("public_address", sa.String(length=255), nullable=False),
        sa.Column("region", sa.String(length=100), nullable=False),
        sa.Column("tags", JSON, nullable=False),
        sa.Column("notes", sa.String(), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("last_error", sa.String(), nullable=False),
        sa.Column("last_seen_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("instance", sa.String(length=64), nullable=False),
        sa.Column("agent_version", sa.String(length=50), nullable=False),
        sa.Column("xray_version", sa.String(length=50), nullable=False),
        sa.Column("os_info", JSON, nullable=False),
        sa.Column("reported_address", sa.String(length=64), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("mode", sa.String(length=20), nullable=False),
        sa.Column("allow_private_destinations", sa.Boolean(), nullable=False),
        sa.Column("traffic_factor", sa.Numeric(precision=8, scale=4), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_servers")),
        sa.UniqueConstraint("name", name=op.f("uq_servers_name")),
        sa.UniqueConstraint("slug", name=op.f("uq_servers_slug")),
    )
    with op.batch_alter_table("servers", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_servers_enabled"), ["enabled"], unique=False)
        batch_op.create_index(batch_op.f("ix_servers_status"), ["status"], unique=False)

    op.create_table(
        "settings",
        sa.Column("key", sa.String(length=100), nullable=False),
        sa.Column("value", JSON, nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_settings")),
    )
    op.create_table(
        "tag_totals",
        sa.Column("server_id", BIG, autoincrement=False, nullable=False),
        sa.Column("direction", sa.String(length=10), nullable=False),
        sa.Column("tag", sa.String(length=100), nullable=False),
        sa.Column("up_bytes", BIG, nullable=False),
        sa.Column("down_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("server_id", "direction", "tag", name=op.f("pk_tag_totals")),
    )
    op.create_table(
        "tombstones",
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("key", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=200), nullable=False),
        sa.Column("server_id", BIG, nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("retiring", sa.Boolean(), nullable=False),
        sa.PrimaryKeyConstraint("kind", "key", name=op.f("pk_tombstones")),
    )
    with op.batch_alter_table("tombstones", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_tombstones_retiring"), ["retiring"], unique=False)

    op.create_table(
        "traffic_daily",
        sa.Column("client_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("inbound_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("day", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("up_bytes", BIG, nullable=False),
        sa.Column("down_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("client_ref", "inbound_ref", "day", name=op.f("pk_traffic_daily")),
        postgresql_with={"fillfactor": 70},
    )
    with op.batch_alter_table("traffic_daily", schema=None) as batch_op:
        batch_op.create_index("ix_traffic_daily_server_id_day", ["server_id", "day"], unique=False)

    op.create_table(
        "traffic_hourly",
        sa.Column("client_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("inbound_ref", BIG, autoincrement=False, nullable=False),
        sa.Column("hour", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("up_bytes", BIG, nullable=False),
        sa.Column("down_bytes", BIG, nullable=False),
        sa.PrimaryKeyConstraint("client_ref", "inbound_ref", "hour", name=op.f("pk_traffic_hourly")),
        postgresql_with={"fillfactor": 70},
    )
    with op.batch_alter_table("traffic_hourly", schema=None) as batch_op:
        batch_op.create_index("ix_traffic_hourly_server_id_hour", ["server_id", "hour"], unique=False)

    op.create_table(
        "api_tokens",
        sa.Column("id", BIG, nullable=False),
        sa.Column("admin_id", BIG, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("scopes", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["admin_id"], ["admins.id"], name=op.f("fk_api_tokens_admin_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_api_tokens")),
        sa.UniqueConstraint("token_sha256", name=op.f("uq_api_tokens_token_sha256")),
    )
    with op.batch_alter_table("api_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_api_tokens_admin_id"), ["admin_id"], unique=False)

    op.create_table(
        "bot_bindings",
        sa.Column("telegram_id", BIG, autoincrement=False, nullable=False),
        sa.Column("admin_id", BIG, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admins.id"], name=op.f("fk_bot_bindings_admin_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("telegram_id", name=op.f("pk_bot_bindings")),
    )
    with op.batch_alter_table("bot_bindings", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_bot_bindings_admin_id"), ["admin_id"], unique=False)

    op.create_table(
        "bot_codes",
        sa.Column("code_sha256", sa.String(length=64), nullable=False),
        sa.Column("admin_id", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(["admin_id"], ["admins.id"], name=op.f("fk_bot_codes_admin_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("code_sha256", name=op.f("pk_bot_codes")),
    )
    with op.batch_alter_table("bot_codes", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_bot_codes_admin_id"), ["admin_id"], unique=False)

    op.create_table(
        "certificates",
        sa.Column("id", BIG, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("common_name", sa.String(length=100), nullable=False),
        sa.Column("serial_number", sa.String(length=64), nullable=False),
        sa.Column("nkey", sa.String(length=64), nullable=False),
        sa.Column("pem_certificate", sa.String(), nullable=False),
        sa.Column("issued_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("revoked_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_certificates_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_certificates")),
        sa.UniqueConstraint("serial_number", name=op.f("uq_certificates_serial_number")),
    )
    with op.batch_alter_table("certificates", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_certificates_nkey"), ["nkey"], unique=False)
        batch_op.create_index(batch_op.f("ix_certificates_server_id"), ["server_id"], unique=False)

    op.create_table(
        "clients",
        sa.Column("id", BIG, nullable=False),
        sa.Column("ref", BIG, nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("name_key", sa.String(length=100), nullable=False),
        sa.Column("sub_id", sa.String(length=64), nullable=False),
        sa.Column("group_id", BIG, nullable=True),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("cut_reason", sa.String(length=20), nullable=True),
        sa.Column("total_bytes", BIG, nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("comment", sa.String(), nullable=False),
        sa.Column("telegram_id", BIG, nullable=True),
        sa.Column("limits", JSON, nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["group_id"], ["groups.id"], name=op.f("fk_clients_group_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_clients")),
        sa.UniqueConstraint("name_key", name=op.f("uq_clients_name_key")),
        sa.UniqueConstraint("ref", name=op.f("uq_clients_ref")),
        sa.UniqueConstraint("sub_id", name=op.f("uq_clients_sub_id")),
    )
    with op.batch_alter_table("clients", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_clients_cut_reason"), ["cut_reason"], unique=False)
        batch_op.create_index(batch_op.f("ix_clients_expires_at"), ["expires_at"], unique=False)
        batch_op.create_index(batch_op.f("ix_clients_group_id"), ["group_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_clients_telegram_id"), ["telegram_id"], unique=False)

    op.create_table(
        "enrollment_tokens",
        sa.Column("token_id", sa.String(length=64), nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("used_nkey", sa.String(length=64), nullable=True),
        sa.Column("used_key_sha256", sa.String(length=64), nullable=True),
        sa.Column("answer_sealed", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_enrollment_tokens_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("token_id", name=op.f("pk_enrollment_tokens")),
    )
    with op.batch_alter_table("enrollment_tokens", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_enrollment_tokens_server_id"), ["server_id"], unique=False)

    op.create_table(
        "inbounds",
        sa.Column("id", BIG, nullable=False),
        sa.Column("ref", BIG, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("remark", sa.String(length=200), nullable=False),
        sa.Column("listen", sa.String(length=200), nullable=False),
        sa.Column("port", sa.Integer(), nullable=False),
        sa.Column("protocol", sa.String(length=30), nullable=False),
        sa.Column("network", sa.String(length=30), nullable=False),
        sa.Column("security", sa.String(length=30), nullable=False),
        sa.Column("config_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("sort_order", sa.Integer(), nullable=False),
        sa.Column("total_bytes", BIG, nullable=True),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_inbounds_server_id")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_inbounds")),
        sa.UniqueConstraint("ref", name=op.f("uq_inbounds_ref")),
    )
    with op.batch_alter_table("inbounds", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_inbounds_server_id"), ["server_id"], unique=False)

    op.create_table(
        "profiles",
        sa.Column("id", BIG, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=100), nullable=False),
        sa.Column("server_id", BIG, nullable=True),
        sa.Column("body_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("updated_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["server_id"], ["servers.id"], name=op.f("fk_profiles_server_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_profiles")),
        sa.UniqueConstraint("name", name=op.f("uq_profiles_name")),
    )
    with op.batch_alter_table("profiles", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_profiles_kind"), ["kind"], unique=False)
        batch_op.create_index(batch_op.f("ix_profiles_server_id"), ["server_id"], unique=False)

    op.create_table(
        "server_revisions",
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("desired_revision", BIG, nullable=False),
        sa.Column("desired_digest", sa.String(length=64), nullable=False),
        sa.Column("wanted_revision", BIG, nullable=False),
        sa.Column("wanted_digest", sa.String(length=64), nullable=False),
        sa.Column("applied_revision", BIG, nullable=False),
        sa.Column("degraded", JSON, nullable=False),
        sa.Column("refused_digest", sa.String(length=64), nullable=False),
        sa.Column("lease_owner", sa.String(length=64), nullable=False),
        sa.Column("lease_fence", BIG, nullable=False),
        sa.Column("lease_until_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_server_revisions_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", name=op.f("pk_server_revisions")),
    )
    op.create_table(
        "server_tasks",
        sa.Column("id", BIG, nullable=False),
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("operation", sa.String(length=50), nullable=False),
        sa.Column("status", sa.String(length=20), nullable=False),
        sa.Column("revision", BIG, nullable=True),
        sa.Column("command_id", sa.String(length=64), nullable=False),
        sa.Column("request", JSON, nullable=False),
        sa.Column("response", JSON, nullable=False),
        sa.Column("error", JSON, nullable=True),
        sa.Column("actor", sa.String(length=100), nullable=False),
        sa.Column("trace_id", sa.String(length=64), nullable=False),
        sa.Column("retry_count", sa.Integer(), nullable=False),
        sa.Column("took_ms", sa.Integer(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("completed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("deadline_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("lease_owner", sa.String(length=64), nullable=False),
        sa.Column("lease_until_at", sa.DateTime(timezone=True), nullable=True),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_server_tasks_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_server_tasks")),
    )
    with op.batch_alter_table("server_tasks", schema=None) as batch_op:
        batch_op.create_index("ix_server_tasks_created_at", ["created_at"], unique=False)
        batch_op.create_index("ix_server_tasks_server_id_status", ["server_id", "status"], unique=False)

    op.create_table(
        "sessions",
        sa.Column("token_sha256", sa.String(length=64), nullable=False),
        sa.Column("admin_id", BIG, nullable=False),
        sa.Column("kind", sa.String(length=10), nullable=False),
        sa.Column("address", sa.String(length=64), nullable=False),
        sa.Column("user_agent", sa.String(length=300), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("last_used_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["admin_id"], ["admins.id"], name=op.f("fk_sessions_admin_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("token_sha256", name=op.f("pk_sessions")),
    )
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_sessions_admin_id"), ["admin_id"], unique=False)
        batch_op.create_index(batch_op.f("ix_sessions_expires_at"), ["expires_at"], unique=False)

    op.create_table(
        "state_chunks",
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("body_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_state_chunks_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", "sha256", name=op.f("pk_state_chunks")),
    )
    with op.batch_alter_table("state_chunks", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_state_chunks_created_at"), ["created_at"], unique=False)

    op.create_table(
        "state_entities",
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("kind", sa.String(length=20), nullable=False),
        sa.Column("entity_id", sa.String(length=100), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("body_sealed", sa.LargeBinary(), nullable=True),
        sa.Column("revision", BIG, nullable=False),
        sa.Column("removed", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_state_entities_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", "kind", "entity_id", name=op.f("pk_state_entities")),
    )
    with op.batch_alter_table("state_entities", schema=None) as batch_op:
        batch_op.create_index("ix_state_entities_server_id_revision", ["server_id", "revision"], unique=False)

    op.create_table(
        "state_points",
        sa.Column("server_id", BIG, nullable=False),
        sa.Column("revision", BIG, autoincrement=False, nullable=False),
        sa.Column("digest", sa.String(length=64), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["server_id"], ["servers.id"], name=op.f("fk_state_points_server_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("server_id", "revision", name=op.f("pk_state_points")),
    )
    op.create_table(
        "client_inbounds",
        sa.Column("client_id", BIG, nullable=False),
        sa.Column("inbound_id", BIG, nullable=False),
        sa.Column("credentials_sealed", sa.LargeBinary(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["client_id"], ["clients.id"], name=op.f("fk_client_inbounds_client_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["inbound_id"], ["inbounds.id"], name=op.f("fk_client_inbounds_inbound_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("client_id", "inbound_id", name=op.f("pk_client_inbounds")),
    )
    with op.batch_alter_table("client_inbounds", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_client_inbounds_inbound_id"), ["inbound_id"], unique=False)

    op.create_table(
        "hosts",
        sa.Column("id", BIG, nullable=False),
        sa.Column("inbound_id", BIG, nullable=False),
        sa.Column("remark", sa.String(length=200), nullable=False),
        sa.Column("address", sa.String(length=255), nullable=False),
        sa.Column("port", sa.Integer(), nullable=True),
        sa.Column("options", JSON, nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("sort_order", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(["inbound_id"], ["inbounds.id"], name=op.f("fk_hosts_inbound_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_hosts")),
    )
    with op.batch_alter_table("hosts", schema=None) as batch_op:
        batch_op.create_index(batch_op.f("ix_hosts_inbound_id"), ["inbound_id"], unique=False)


def downgrade() -> None:
    with op.batch_alter_table("hosts", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_hosts_inbound_id"))

    op.drop_table("hosts")
    with op.batch_alter_table("client_inbounds", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_client_inbounds_inbound_id"))

    op.drop_table("client_inbounds")
    op.drop_table("state_points")
    with op.batch_alter_table("state_entities", schema=None) as batch_op:
        batch_op.drop_index("ix_state_entities_server_id_revision")

    op.drop_table("state_entities")
    with op.batch_alter_table("state_chunks", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_state_chunks_created_at"))

    op.drop_table("state_chunks")
    with op.batch_alter_table("sessions", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_sessions_expires_at"))
        batch_op.drop_index(batch_op.f("ix_sessions_admin_id"))

    op.drop_table("sessions")
    with op.batch_alter_table("server_tasks", schema=None) as batch_op:
        batch_op.drop_index("ix_server_tasks_server_id_status")
        batch_op.drop_index("ix_server_tasks_created_at")

    op.drop_table("server_tasks")
    op.drop_table("server_revisions")
    with op.batch_alter_table("profiles", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_profiles_server_id"))
        batch_op.drop_index(batch_op.f("ix_profiles_kind"))

    op.drop_table("profiles")
    with op.batch_alter_table("inbounds", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_inbounds_server_id"))

    op.drop_table("inbounds")
    with op.batch_alter_table("enrollment_tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_enrollment_tokens_server_id"))

    op.drop_table("enrollment_tokens")
    with op.batch_alter_table("clients", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_clients_telegram_id"))
        batch_op.drop_index(batch_op.f("ix_clients_group_id"))
        batch_op.drop_index(batch_op.f("ix_clients_expires_at"))
        batch_op.drop_index(batch_op.f("ix_clients_cut_reason"))

    op.drop_table("clients")
    with op.batch_alter_table("certificates", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_certificates_server_id"))
        batch_op.drop_index(batch_op.f("ix_certificates_nkey"))

    op.drop_table("certificates")
    with op.batch_alter_table("bot_codes", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_bot_codes_admin_id"))

    op.drop_table("bot_codes")
    with op.batch_alter_table("bot_bindings", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_bot_bindings_admin_id"))

    op.drop_table("bot_bindings")
    with op.batch_alter_table("api_tokens", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_api_tokens_admin_id"))

    op.drop_table("api_tokens")
    with op.batch_alter_table("traffic_hourly", schema=None) as batch_op:
        batch_op.drop_index("ix_traffic_hourly_server_id_hour")

    op.drop_table("traffic_hourly")
    with op.batch_alter_table("traffic_daily", schema=None) as batch_op:
        batch_op.drop_index("ix_traffic_daily_server_id_day")

    op.drop_table("traffic_daily")
    with op.batch_alter_table("tombstones", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_tombstones_retiring"))

    op.drop_table("tombstones")
    op.drop_table("tag_totals")
    op.drop_table("settings")
    with op.batch_alter_table("servers", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_servers_status"))
        batch_op.drop_index(batch_op.f("ix_servers_enabled"))

    op.drop_table("servers")
    op.drop_table("server_minutes")
    op.drop_table("revocations")
    with op.batch_alter_table("rejected_batches", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_rejected_batches_server_id"))
        batch_op.drop_index(batch_op.f("ix_rejected_batches_reason"))

    op.drop_table("rejected_batches")
    with op.batch_alter_table("outbox", schema=None) as batch_op:
        batch_op.drop_index("ix_outbox_topic_id")

    op.drop_table("outbox")
    op.drop_table("outbound_traffic")
    with op.batch_alter_table("login_throttles", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_login_throttles_updated_at"))

    op.drop_table("login_throttles")
    op.drop_table("limit_acts")
    op.drop_table("ledger_keys")
    with op.batch_alter_table("ledger_gaps", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_ledger_gaps_server_id"))

    op.drop_table("ledger_gaps")
    op.drop_table("ledger_cursors")
    with op.batch_alter_table("ledger_bodies", schema=None) as batch_op:
        batch_op.drop_index("ix_ledger_bodies_waiting")
        batch_op.drop_index("ix_ledger_bodies_server_id_start_id")
        batch_op.drop_index("ix_ledger_bodies_kept")
        batch_op.drop_index(batch_op.f("ix_ledger_bodies_received_at"))

    op.drop_table("ledger_bodies")
    op.drop_table("groups")
    op.drop_table("fleet_secrets")
    with op.batch_alter_table("client_totals", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_client_totals_period_started_at"))

    op.drop_table("client_totals")
    with op.batch_alter_table("client_inbound_totals", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_client_inbound_totals_server_id"))

    op.drop_table("client_inbound_totals")
    with op.batch_alter_table("client_addresses", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_client_addresses_last_seen_at"))

    op.drop_table("client_addresses")
    with op.batch_alter_table("audit_log", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_audit_log_at"))
        batch_op.drop_index(batch_op.f("ix_audit_log_action"))

    op.drop_table("audit_log")
    op.drop_table("allowances")
    op.drop_table("admins")
