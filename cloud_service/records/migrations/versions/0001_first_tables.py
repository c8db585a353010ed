"""First tables."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "sites",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("stored", sa.BigInteger, nullable=False),
        sa.Column("kept", sa.BigInteger, nullable=False),
        sa.Column("newest_us", sa.BigInteger, nullable=False),
        sa.Column("kept_from_us", sa.BigInteger, nullable=False),
        sa.Column("ledger_total", sa.BigInteger),
        sa.Column("ledger_offset", sa.BigInteger),
        sa.PrimaryKeyConstraint("id", name="pk_sites"),
        sa.UniqueConstraint("name", name="uq_sites_name"),
    )
    op.create_table(
        "decisions",
        sa.Column("site_id", sa.Integer, nullable=False),
        sa.Column("slot", sa.BigInteger, nullable=False),
        sa.Column("time_us", sa.BigInteger, nullable=False),
        sa.Column("label", sa.Text),
        sa.Column("probability", sa.Double),
        sa.Column("entropy", sa.Double),
        sa.Column("threshold", sa.Double),
        sa.Column("exit", sa.Text),
        sa.Column("members", sa.Text, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("absent", sa.BigInteger, nullable=False),
        sa.Column("missing", sa.BigInteger, nullable=False),
        sa.Column("degraded", sa.Text),
        sa.Column("stage_ms", sa.Text, nullable=False),
        sa.Column("payload_bytes", sa.BigInteger, nullable=False),
        sa.Column("bundle_tag", sa.Integer, nullable=False),
        sa.Column("latency_bin", sa.SmallInteger, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "slot", name="pk_decisions"),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_decisions_sites"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_decisions_time", "decisions", ["site_id", "time_us", "slot"])
    op.create_index(
        "ix_decisions_degraded",
        "decisions",
        ["site_id", "time_us", "slot"],
        sqlite_where=sa.text("degraded IS NOT NULL"),
        postgresql_where=sa.text("degraded IS NOT NULL"),
    )
    op.create_table(
        "tallies",
        sa.Column("site_id", sa.Integer, nullable=False),
        sa.Column("span_s", sa.Integer, nullable=False),
        sa.Column("start_s", sa.BigInteger, nullable=False),
        sa.Column("what", sa.String(16), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "span_s", "start_s", "what", "name", name="pk_tallies"),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_tallies_sites"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "ledgers",
        sa.Column("site_id", sa.Integer, nullable=False),
        sa.Column("at_us", sa.BigInteger, nullable=False),
        sa.Column("opened", sa.BigInteger, nullable=False),
        sa.Column("decided", sa.BigInteger, nullable=False),
        sa.Column("degraded", sa.BigInteger, nullable=False),
        sa.Column("expired", sa.BigInteger, nullable=False),
        sa.Column("open", sa.BigInteger, nullable=False),
        sa.Column("unsent", sa.BigInteger, nullable=False),
        sa.Column("stored", sa.BigInteger, nullable=False),
        sa.Column("lost", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("site_id", "at_us", name="pk_ledgers"),
        sa.ForeignKeyConstraint(["site_id"], ["sites.id"], name="fk_ledgers_sites"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    """There is no way back: what a newer program has stored an older one cannot read."""
    raise NotImplementedError("restore the backup made before the update")
