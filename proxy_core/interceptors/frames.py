"""What goes through the pipe from the gateway to the interceptors' process: requests and ends, one frame each.

A frame is a head of fixed size, a pickled tuple, and a body as it is, which is never copied into another buffer. Both ends are
luthien of the same installation, so the pickle is trusted; it takes any text that traffic can hold.
"""

from __future__ import annotations

import pickle
from collections.abc import MutableMapping
from struct import Struct
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from msgspec.structs import replace

from proxy_core.interceptors.records import Began, Ended
from proxy_core.wire.glance import Glance, glance

if TYPE_CHECKING:
    from proxy_core.policy_services import Call

_HEAD = Struct("<BIQ")
"""Kind, length of the pickle, length of the body; in bytes."""
TASK, BEGAN, KNOWN, ENDED = range(4)
"""What is to be done; a request; a request that is told for its end alone; an end."""
_LOOKED_AT_NOTHING = Glance()


class Frame(NamedTuple):
    """One frame as it was read."""

    kind: int
    encoded: bytes
    body: bytes

    def meta(self) -> Any:
        """What the pickle holds. Raises what `pickle` raises."""
        return pickle.loads(self.encoded)  # noqa: S301 - our own process wrote it


def pack(kind: int, meta: object, body: bytes = b"") -> tuple[bytes, bytes]:
    """A frame as two buffers that follow each other. Raises what `pickle` raises."""
    encoded = pickle.dumps(meta, protocol=5)
    return _HEAD.pack(kind, len(encoded), len(body)) + encoded, body


def read(pipe: BinaryIO) -> Frame | None:
    """The next frame; None at the end. Raises EOFError in the midst of one."""
    head = pipe.read(_HEAD.size)
    if not head:
        return None
    kind, meta_bytes, body_bytes = _HEAD.unpack(_whole(head, _HEAD.size))
    encoded = _whole(pipe.read(meta_bytes), meta_bytes)
    return Frame(kind, encoded, _whole(pipe.read(body_bytes), body_bytes))


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise EOFError("a frame is not whole")
    return data


def pack_began(item: Began, *, tell: bool = True) -> tuple[bytes, bytes]:
    """A request; without `tell` its end alone will be told."""
    intent = replace(item.intent, body=b"", pieces=())
    was_looked_at = item.glance is not _LOOKED_AT_NOTHING and item.glance != _LOOKED_AT_NOTHING
    return pack(BEGAN if tell else KNOWN, (intent, item.hashes, was_looked_at), item.intent.body)


def began_of(frame: Frame) -> Began:
    """The request of a frame. Raises what `pickle` raises."""
    intent, hashes, was_looked_at = frame.meta()
    intent.body = frame.body
    return Began(intent, glance(frame.body) if was_looked_at else _LOOKED_AT_NOTHING, hashes)


def pack_ended(item: Ended) -> tuple[bytes, bytes]:
    """An end; of the request only its id."""
    meta = (
        item.began.intent.transaction_id,
        replace(item.outcome, body=b""),
        item.arrivals,
        item.started,
        item.content_type,
        item.content_encoding,
        item.upstream,
        item.upstream_api,
        item.translated,
        [_told(call) for call in item.calls],
    )
    return pack(ENDED, meta, item.outcome.body)


def ended_of(frame: Frame, known: MutableMapping[str, Began]) -> Ended | None:
    """The end of a frame, whose request is taken out of `known`; None where it is not there. Raises what `pickle` raises."""
    meta = frame.meta()
    transaction_id, outcome, arrivals, started, content_type, content_encoding, upstream, upstream_api, translated, calls = meta
    began = known.pop(transaction_id, None)
    if began is None:
        return None
    outcome.body = frame.body
    return Ended(
        began,
        outcome,
        arrivals=arrivals,
        started=started,
        content_type=content_type,
        content_encoding=content_encoding,
        upstream=upstream,
        upstream_api=upstream_api,
        translated=translated,
        calls=tuple(calls),
    )


def _told(call: Call) -> Call:
    """Without the reading of its answer: its bytes say the same."""
    return replace(call, response=replace(call.response, answer=None))
