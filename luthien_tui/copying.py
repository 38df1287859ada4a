"""What can be copied of a transaction, as exact text."""

from __future__ import annotations

from luthien_tui.detail_documents import curl
from luthien_tui.text import decode
from luthien_tui.widgets.pick_screen import PickItem
from proxy_core.control.plane import TransactionDetail

CLIPBOARD_LIMIT = 74_000
"""Bytes that terminals take over OSC 52; more is refused."""
_CHOICES = (
    ("id", "i", "transaction id"),
    ("request body", "b", "as it was sent"),
    ("response body", "r", "as it arrived"),
    ("curl command", "c", "sends the request again, through this gateway"),
)


def copy_items() -> list[PickItem]:
    return [PickItem(name, key, name, note) for name, key, note in _CHOICES]


def copy_text(what: str, detail: TransactionDetail, address: str) -> str:
    """The text of one choice."""
    match what:
        case "request body":
            return decode(detail.request_body)
        case "response body":
            return decode(detail.response_body)
        case "curl command":
            return curl(detail, address)
    return detail.row.transaction_id
