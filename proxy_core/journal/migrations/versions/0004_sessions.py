"""Who asks and what it belongs to: users, tags, workflows, the lineage of sessions, and whether token counts are estimates."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Each of these only notes the column: no row of an existing table is rewritten, however many there are.
    op.add_column("transactions", sa.Column("user_name", sa.Text(), nullable=False, server_default=""))
    op.add_column("transactions", sa.Column("tags", sa.Text(), nullable=False, server_default=""))
    op.add_column("transactions", sa.Column("workflow", sa.Text(), nullable=False, server_default=""))
    op.add_column("transactions", sa.Column("parent_session", sa.Text(), nullable=False, server_default=""))
    op.add_column("transactions", sa.Column("link", sa.String(length=16), nullable=False, server_default=""))
    op.add_column("transactions", sa.Column("side", sa.SmallInteger(), nullable=False, server_default="0"))
    op.add_column("outcomes", sa.Column("estimated", sa.SmallInteger(), nullable=False, server_default="0"))
    op.add_column("outcomes", sa.Column("tools", sa.Text(), nullable=False, server_default=""))
    op.add_column("outcomes", sa.Column("address", sa.Text(), nullable=False, server_default=""))
    op.create_index("transactions_by_session", "transactions", ["session_id", "seq"])
    op.create_index("transactions_by_agent", "transactions", ["agent", "seq"])
    has_parent = sa.text("parent_session <> ''")  # for most rows this index holds nothing
    op.create_index(
        "transactions_by_parent",
        "transactions",
        ["parent_session", "session_id"],
        sqlite_where=has_parent,
        postgresql_where=has_parent,
    )
