"""Something in the place of what was taken out of a recording, so that policies that look for secrets find one again.

Where a recording says that it was redacted, a made-up key stands for each mark of it: in the headers that carry credentials, in
the query and in the bodies. It is of the kind that the record names, and the client's own credential too, so that policies which
know keys by their form and those which know them by the request both see one. It never leaves the machine: live, the marks stay.
"""

from __future__ import annotations

import re

from msgspec.structs import replace

from proxy_core.credentials import is_credential
from proxy_core.detectors.secrets import REDACTED, is_secret_header
from proxy_core.replay.exchanges import Answered, AskedByPolicy, Exchange, RawHeaders, is_clean
from proxy_core.wire.headers import HOP_BY_HOP

_LETTERS = b"ReplayedStandIn0" * 6
STAND_INS: dict[str, bytes] = {
    "anthropic_key": b"sk-ant-api03-" + _LETTERS[:40],
    "openai_key": b"sk-proj-" + _LETTERS[:40],
    "openrouter_key": b"sk-or-v1-" + _LETTERS[:40],
    "plain_openai_key": b"sk-" + _LETTERS[:48],
    "aws_access_key": b"AKIAREPLAYEDSTANDSIN",
    "github_token": b"ghp_" + _LETTERS[:36],
    "github_pat": b"github_pat_" + _LETTERS[:60],
    "fine_grained_github_pat": b"github_pat_" + _LETTERS[:22] + b"_" + _LETTERS[:59],
    "gitlab_token": b"glpat-" + _LETTERS[:20],
    "slack_token": b"xoxb-" + _LETTERS[:52],
    "slack_bot_token": b"xoxb-" + _LETTERS[:52],
    "google_key": b"AIza" + _LETTERS[:35],
    "stripe_key": b"sk_live_" + _LETTERS[:24],
    "huggingface_token": b"hf_" + _LETTERS[:34],
    "npm_token": b"npm_" + _LETTERS[:36],
    "pypi_token": b"pypi-" + _LETTERS[:60],
    "sendgrid_key": b"SG." + _LETTERS[:22] + b"." + _LETTERS[:43],
    "groq_key": b"gsk_" + _LETTERS[:52],
}
"""By kind: each has the form of a key, and is none."""
USUAL = STAND_INS["anthropic_key"]
_KINDS = re.compile(rf"\b({'|'.join(STAND_INS)})\b")
_NOT_SENT = HOP_BY_HOP | {b"host", b"content-length", b"expect"}


def restored(exchange: Exchange) -> Exchange:
    """The exchange with a made-up key for everything that was taken out of it."""
    stand_in = stand_in_of(exchange)
    headers = [(name, _credential(name, value, stand_in)) for name, value in exchange.headers]
    found = replace(exchange, headers=headers)
    if "query" in exchange.redacted:
        found.target = exchange.target.replace(REDACTED, stand_in)
    if exchange.body_redacted:
        found.body = exchange.body.replace(REDACTED, stand_in)
    if exchange.upstream is not None and exchange.upstream.redacted:
        # The offsets of the pieces are those of the original, which was longer or shorter.
        body = exchange.upstream.body.replace(REDACTED, stand_in)
        found.upstream = replace(exchange.upstream, body=body, chunks=[])
    if exchange.redacted:
        found.calls = tuple(_restored_call(call, stand_in) for call in exchange.calls)
    return found


def _restored_call(call: AskedByPolicy, stand_in: bytes) -> AskedByPolicy:
    answer = replace(call.answer, body=call.answer.body.replace(REDACTED, stand_in))
    return replace(call, body=call.body.replace(REDACTED, stand_in), answer=answer)


def as_recorded(answer: Answered, exchange: Exchange, transaction_id: str) -> Answered:
    """A replayed answer as the recorder would have written it: without the made-up key, under the recorded id.

    Luthien makes ids and names in answers out of the transaction's own."""
    body = answer.body
    if exchange.redacted:
        body = body.replace(stand_in_of(exchange), REDACTED)
    recorded_id = exchange.transaction_id
    if recorded_id and transaction_id and recorded_id != transaction_id:
        body = body.replace(transaction_id.encode("ascii"), recorded_id.encode("utf-8", "replace"))
    return answer if body is answer.body else replace(answer, body=body)


def client_headers(headers: RawHeaders, *, live: bool) -> RawHeaders:
    """Recorded headers as they are sent again. Live, a credential that was taken out is left away, so that the upstream's own
    key takes its place."""
    return [one for one in headers if one[0] not in _NOT_SENT and is_clean(one) and not (live and _is_taken_out(*one))]


def stand_in_of(exchange: Exchange) -> bytes:
    """The made-up key for an exchange, of the kind that a policy of the record names."""
    facts = exchange.facts
    said = "" if facts is None else "\n".join([facts.error, *(one.message for one in facts.verdicts)])
    kind = _KINDS.search(said)
    return USUAL if kind is None else STAND_INS[kind.group()]


def _credential(name: bytes, value: bytes, stand_in: bytes) -> bytes:
    if not _is_taken_out(name, value):
        return value
    return b"Bearer " + stand_in if value[:7].lower() == b"bearer " else stand_in


def _is_taken_out(name: bytes, value: bytes) -> bool:
    return REDACTED in value.lower() and (is_credential(name) or is_secret_header(name.decode("latin-1")))
