"""The journal's one schema, for SQLite and Postgres alike.

Bodies are bytes, never text. Rows are only ever added; the newest outcome of a transaction and the newest row of a hold or key
are the ones that count. `budgets` and `budget_reservations` are no records: they say what holds now. A column that is added
later stands last and has a default, which spooled rows of older versions get.
`HEAD_REVISION` names the migration that gives exactly this schema; a test holds the two together.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    String,
    Table,
    Text,
    event,
    literal_column,
)

HEAD_REVISION = "0004"

metadata = MetaData()
_Serial = BigInteger().with_variant(Integer(), "sqlite")

meta = Table(
    "meta",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

transactions = Table(
    "transactions",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("transaction_id", String(32), nullable=False),
    Column("started_ns", BigInteger, nullable=False),
    Column("method", String(16), nullable=False),
    Column("path", Text, nullable=False),
    Column("query", LargeBinary, nullable=False),
    Column("dialect", String(16), nullable=False),
    Column("operation", String(32), nullable=False),
    Column("session_id", Text, nullable=False),
    Column("predecessor", Text, nullable=False),
    Column("agent", Text, nullable=False),
    Column("model", Text, nullable=False),
    Column("upstream", String(64), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("stream", SmallInteger, nullable=False),
    Column("client", Text, nullable=False),
    Column("preview", Text, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_bytes", BigInteger, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("redacted", SmallInteger, nullable=False),
    Column("chain", LargeBinary, nullable=False),
    Column("history_length", Integer, nullable=False),
    Column("policy_digest", String(64), nullable=False, server_default=""),
    Column("client_key", Text, nullable=False, server_default=""),
    Column("user_name", Text, nullable=False, server_default=""),
    Column("tags", Text, nullable=False, server_default=""),
    Column("workflow", Text, nullable=False, server_default=""),
    Column("parent_session", Text, nullable=False, server_default=""),
    Column("link", String(16), nullable=False, server_default=""),
    Column("side", SmallInteger, nullable=False, server_default="0"),
)
Index("transactions_by_id", transactions.c.transaction_id, unique=True)
Index("transactions_by_session", transactions.c.session_id, transactions.c.seq)
Index("transactions_by_agent", transactions.c.agent, transactions.c.seq)
_has_parent = transactions.c.parent_session != literal_column("''")
_by_parent = Index("transactions_by_parent", transactions.c.parent_session, transactions.c.session_id, sqlite_where=_has_parent)


@event.listens_for(metadata, "before_create")
def _prepare_for_postgres(_: MetaData, connection: Connection, **options: Any) -> None:
    if connection.dialect.name == "postgresql":  # said above, it would load that dialect for every store
        _by_parent.dialect_kwargs["postgresql_where"] = _has_parent


outcomes = Table(
    "outcomes",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("transaction_id", String(32), nullable=False),
    Column("finished_ns", BigInteger, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("status", Integer),
    Column("verdict", String(16), nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_bytes", BigInteger, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("redacted", SmallInteger, nullable=False),
    Column("complete", SmallInteger, nullable=False),
    Column("model", Text, nullable=False),
    Column("response_id", Text, nullable=False),
    Column("input_tokens", BigInteger),
    Column("output_tokens", BigInteger),
    Column("cached_tokens", BigInteger),
    Column("cache_write_tokens", BigInteger),
    Column("reasoning_tokens", BigInteger),
    Column("cost_usd", Float(53)),
    Column("ttft_ms", Float(53)),
    Column("total_ms", Float(53)),
    Column("overhead_ms", Float(53)),
    Column("timing", LargeBinary, nullable=False),
    Column("error", Text, nullable=False),
    Column("stop_reason", Text, nullable=False),
    Column("tool_calls", Integer, nullable=False),
    Column("verdicts", LargeBinary),
    Column("upstream", String(64), nullable=False, server_default=""),
    Column("reason", String(64), nullable=False, server_default=""),
    Column("estimated", SmallInteger, nullable=False, server_default="0"),
    Column("tools", Text, nullable=False, server_default=""),
    Column("address", Text, nullable=False, server_default=""),
)
Index("outcomes_by_id", outcomes.c.transaction_id)

sent_requests = Table(
    "sent_requests",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("transaction_id", String(32), nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("upstream", String(64), nullable=False),
    Column("reason", String(64), nullable=False),
    Column("target", LargeBinary, nullable=False),
    Column("headers", LargeBinary, nullable=False),
    Column("body", LargeBinary, nullable=False),
    Column("body_bytes", BigInteger, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("redacted", SmallInteger, nullable=False),
    Column("verdicts", LargeBinary),
)
Index("sent_requests_by_id", sent_requests.c.transaction_id)

upstream_answers = Table(
    "upstream_answers",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("transaction_id", String(32), nullable=False),
    Column("status", Integer),
    Column("body", LargeBinary, nullable=False),
    Column("body_bytes", BigInteger, nullable=False),
    Column("body_hash", LargeBinary, nullable=False),
    Column("redacted", SmallInteger, nullable=False),
)
Index("upstream_answers_by_id", upstream_answers.c.transaction_id)

late_verdicts = Table(
    "late_verdicts",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("transaction_id", String(32), nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("verdicts", LargeBinary, nullable=False),
)
Index("late_verdicts_by_id", late_verdicts.c.transaction_id)

control_changes = Table(
    "control_changes",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("at_ns", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
    Column("source", String(16), nullable=False),
    Column("what", Text, nullable=False),
    Column("before", LargeBinary, nullable=False),
    Column("after", LargeBinary, nullable=False),
    Column("digest_before", String(64), nullable=False),
    Column("digest_after", String(64), nullable=False),
    Column("override", LargeBinary),
    Column("declared", String(64), nullable=False),
)
Index("control_changes_by_what", control_changes.c.what)

holds = Table(
    "holds",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False),
    Column("transaction_id", String(32), nullable=False),
    Column("stage", String(16), nullable=False),
    Column("policy", Text, nullable=False),
    Column("why", Text, nullable=False),
    Column("content", LargeBinary, nullable=False),
    Column("content_bytes", BigInteger, nullable=False),
    Column("content_hash", LargeBinary, nullable=False),
    Column("shown", String(64), nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("deadline_ns", BigInteger, nullable=False),
    Column("status", String(16), nullable=False),
    Column("decided_by", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("edited", LargeBinary),
    Column("at_ns", BigInteger, nullable=False),
    Column("redacted", SmallInteger, nullable=False),
    Column("facts", LargeBinary, nullable=False),
)
Index("holds_by_id", holds.c.id)
Index("holds_by_transaction", holds.c.transaction_id)

messages = Table(
    "messages",
    metadata,
    Column("hash", LargeBinary, primary_key=True),
    Column("size", BigInteger, nullable=False),
    Column("redacted", SmallInteger, nullable=False),
    Column("body", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

gaps = Table(
    "gaps",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("started_ns", BigInteger, nullable=False),
    Column("ended_ns", BigInteger, nullable=False),
    Column("records", BigInteger, nullable=False),
    Column("reason", Text, nullable=False),
)

keys = Table(
    "keys",
    metadata,
    Column("seq", _Serial, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("hint", String(16), nullable=False),
    Column("status", String(16), nullable=False),
    Column("limits", LargeBinary, nullable=False),
    Column("created_ns", BigInteger, nullable=False),
    Column("at_ns", BigInteger, nullable=False),
    Column("who", Text, nullable=False),
)
Index("keys_by_name", keys.c.name)

budgets = Table(
    "budgets",
    metadata,
    Column("scope", Text, primary_key=True),
    Column("period", String(16), primary_key=True),
    Column("spent", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
)

budget_reservations = Table(
    "budget_reservations",
    metadata,
    Column("name", String(32), primary_key=True),
    Column("scope", Text, primary_key=True),
    Column("period", String(16), primary_key=True),
    Column("gateway", String(32), nullable=False),
    Column("amount", BigInteger, nullable=False),
    Column("expires_ns", BigInteger, nullable=False),
)
Index("budget_reservations_by_gateway", budget_reservations.c.gateway)
