"""What policies and operators do: verdicts, final forms, control changes, holds."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def _serial() -> sa.Column[int]:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Column("seq", kind, autoincrement=True, nullable=False, primary_key=True)


def upgrade() -> None:
    # Each of these only notes the column: no row of an existing table is rewritten, however many there are.
    op.add_column("transactions", sa.Column("policy_digest", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("transactions", sa.Column("client_key", sa.Text(), nullable=False, server_default=""))
    op.add_column("outcomes", sa.Column("verdicts", sa.LargeBinary(), nullable=True))
    op.add_column("outcomes", sa.Column("upstream", sa.String(length=64), nullable=False, server_default=""))
    op.add_column("outcomes", sa.Column("reason", sa.String(length=64), nullable=False, server_default=""))
    op.create_table(
        "sent_requests",
        _serial(),
        sa.Column("transaction_id", sa.String(length=32), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("upstream", sa.String(length=64), nullable=False),
        sa.Column("reason", sa.String(length=64), nullable=False),
        sa.Column("target", sa.LargeBinary(), nullable=False),
        sa.Column("headers", sa.LargeBinary(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("redacted", sa.SmallInteger(), nullable=False),
        sa.Column("verdicts", sa.LargeBinary(), nullable=True),
    )
    op.create_index("sent_requests_by_id", "sent_requests", ["transaction_id"])
    op.create_table(
        "upstream_answers",
        _serial(),
        sa.Column("transaction_id", sa.String(length=32), nullable=False),
        sa.Column("status", sa.Integer(), nullable=True),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("body_hash", sa.LargeBinary(), nullable=False),
        sa.Column("redacted", sa.SmallInteger(), nullable=False),
    )
    op.create_index("upstream_answers_by_id", "upstream_answers", ["transaction_id"])
    op.create_table(
        "late_verdicts",
        _serial(),
        sa.Column("transaction_id", sa.String(length=32), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("verdicts", sa.LargeBinary(), nullable=False),
    )
    op.create_index("late_verdicts_by_id", "late_verdicts", ["transaction_id"])
    op.create_table(
        "control_changes",
        _serial(),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
        sa.Column("source", sa.String(length=16), nullable=False),
        sa.Column("what", sa.Text(), nullable=False),
        sa.Column("before", sa.LargeBinary(), nullable=False),
        sa.Column("after", sa.LargeBinary(), nullable=False),
        sa.Column("digest_before", sa.String(length=64), nullable=False),
        sa.Column("digest_after", sa.String(length=64), nullable=False),
        sa.Column("override", sa.LargeBinary(), nullable=True),
        sa.Column("declared", sa.String(length=64), nullable=False),
    )
    op.create_index("control_changes_by_what", "control_changes", ["what"])
    op.create_table(
        "holds",
        _serial(),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("transaction_id", sa.String(length=32), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("why", sa.Text(), nullable=False),
        sa.Column("content", sa.LargeBinary(), nullable=False),
        sa.Column("content_bytes", sa.BigInteger(), nullable=False),
        sa.Column("content_hash", sa.LargeBinary(), nullable=False),
        sa.Column("shown", sa.String(length=64), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("deadline_ns", sa.BigInteger(), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("decided_by", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("edited", sa.LargeBinary(), nullable=True),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("redacted", sa.SmallInteger(), nullable=False),
        sa.Column("facts", sa.LargeBinary(), nullable=False),
    )
    op.create_index("holds_by_id", "holds", ["id"])
    op.create_index("holds_by_transaction", "holds", ["transaction_id"])
