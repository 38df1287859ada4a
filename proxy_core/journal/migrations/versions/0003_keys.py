"""Clients' keys, and what was spent of their budgets."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    kind = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "keys",
        sa.Column("seq", kind, autoincrement=True, nullable=False, primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("hint", sa.String(length=16), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("limits", sa.LargeBinary(), nullable=False),
        sa.Column("created_ns", sa.BigInteger(), nullable=False),
        sa.Column("at_ns", sa.BigInteger(), nullable=False),
        sa.Column("who", sa.Text(), nullable=False),
    )
    op.create_index("keys_by_name", "keys", ["name"])
    op.create_table(
        "budgets",
        sa.Column("scope", sa.Text(), nullable=False, primary_key=True),
        sa.Column("period", sa.String(length=16), nullable=False, primary_key=True),
        sa.Column("spent", sa.BigInteger(), nullable=False),
        sa.Column("reserved", sa.BigInteger(), nullable=False),
    )
    op.create_table(
        "budget_reservations",
        sa.Column("name", sa.String(length=32), nullable=False, primary_key=True),
        sa.Column("scope", sa.Text(), nullable=False, primary_key=True),
        sa.Column("period", sa.String(length=16), nullable=False, primary_key=True),
        sa.Column("gateway", sa.String(length=32), nullable=False),
        sa.Column("amount", sa.BigInteger(), nullable=False),
        sa.Column("expires_ns", sa.BigInteger(), nullable=False),
    )
    op.create_index("budget_reservations_by_gateway", "budget_reservations", ["gateway"])
