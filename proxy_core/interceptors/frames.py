"""What goes through the pipe from the gateway to the interceptors' process: requests and ends, one frame each.

A frame is a head of fixed size, an encoded tuple, and a body as it is. The tuple is MessagePack, or a pickle where that cannot
hold it: text with half of a surrogate pair, answers that policies asked for. Both ends are luthien of the same installation, so
the pickle is trusted.
"""

from __future__ import annotations

import pickle
from collections.abc import MutableMapping
from struct import Struct
from typing import TYPE_CHECKING, Any, BinaryIO

import msgspec
from msgspec.structs import replace

from proxy_core.interceptors.records import Began, End, Ended
from proxy_core.journal.records import Intent
from proxy_core.wire.glance import Glance
from proxy_core.wire.glance import glance as look_at

if TYPE_CHECKING:
    from proxy_core.policy_services import Call

_HEAD = Struct("<BIQ")
"""Kind, length of the tuple, length of the body; in bytes."""
TASK, BEGAN, KNOWN, ENDED = range(4)
"""What is to be done; a request; a request that is told for its end alone; an end."""
_PICKLED = 128
"""Added to the kind of a frame whose tuple is a pickle."""
_LOOKED_AT_NOTHING = Glance()


class _BeganTold(msgspec.Struct, array_like=True, gc=False):
    intent: Intent
    hashes: tuple[bytes, ...]
    was_looked_at: bool


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[int, msgspec.msgpack.Decoder[Any]] = {
    BEGAN: msgspec.msgpack.Decoder(_BeganTold),
    ENDED: msgspec.msgpack.Decoder(End),
}
_DECODERS[KNOWN] = _DECODERS[BEGAN]


class Frame(msgspec.Struct, gc=False):
    """One frame as it was read; taken apart later, because whoever reads should be quick."""

    kind: int
    is_pickled: bool
    told_bytes: int
    data: bytes
    """The tuple, then the body."""

    @property
    def body(self) -> bytes:
        return self.data[self.told_bytes :]

    def told(self) -> Any:
        """What it tells beside the body. Raises what `pickle` and `msgspec` raise."""
        encoded = self.data[: self.told_bytes]
        if self.is_pickled:
            return pickle.loads(encoded)  # noqa: S301 - our own process wrote it
        return _DECODERS[self.kind].decode(encoded)


def pack_task(task: object) -> bytes:
    """What the process is for: its first frame. Raises what `pickle` raises."""
    encoded = pickle.dumps(task, protocol=5)
    return _HEAD.pack(TASK | _PICKLED, len(encoded), 0) + encoded


def _pack(kind: int, told: _BeganTold | End, body: bytes, *, is_plain: bool = True) -> tuple[bytes, bytes]:
    """A frame as two buffers that follow each other. Raises what `pickle` raises."""
    if is_plain:
        try:
            encoded = _ENCODER.encode(told)
        except (TypeError, ValueError, OverflowError):
            pass
        else:
            return _HEAD.pack(kind, len(encoded), len(body)) + encoded, body
    encoded = pickle.dumps(told, protocol=5)
    return _HEAD.pack(kind | _PICKLED, len(encoded), len(body)) + encoded, body


def read(pipe: BinaryIO) -> Frame | None:
    """The next frame; None at the end. Raises EOFError in the midst of one."""
    head = pipe.read(_HEAD.size)
    if not head:
        return None
    kind, told_bytes, body_bytes = _HEAD.unpack(_whole(head, _HEAD.size))
    size = told_bytes + body_bytes
    return Frame(kind & ~_PICKLED, kind >= _PICKLED, told_bytes, _whole(pipe.read(size), size))


def _whole(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise EOFError("a frame is not whole")
    return data


def pack_began(intent: Intent, glance: Glance, hashes: tuple[bytes, ...]) -> tuple[bytes, bytes]:
    """A request. Raises what `pickle` raises."""
    told = _BeganTold(replace(intent, body=b"", pieces=()), hashes, glance != _LOOKED_AT_NOTHING)
    return _pack(BEGAN, told, intent.body)


def for_its_end(began: bytes) -> bytes:
    """The first buffer of a packed request, of which the end alone is to be told."""
    return bytes((KNOWN | began[0] & _PICKLED,)) + began[1:]


def began_of(frame: Frame) -> Began:
    """The request of a frame. Raises what `pickle` and `msgspec` raise."""
    told: _BeganTold = frame.told()
    told.intent.body = body = frame.body
    return Began(told.intent, look_at(body) if told.was_looked_at else _LOOKED_AT_NOTHING, told.hashes)


def pack_end(end: End) -> tuple[bytes, bytes]:
    """An end, which is changed. Raises what `pickle` raises."""
    body = end.outcome.body
    end.outcome = replace(end.outcome, body=b"")
    if end.calls:
        end.calls = [_without_answer(call) for call in end.calls]
    return _pack(ENDED, end, body, is_plain=not end.calls)


def ended_of(frame: Frame, known: MutableMapping[str, Began]) -> Ended:
    """The end of a frame, whose request is taken out of `known`. Raises LookupError where it is not there, and what `pickle` and
    `msgspec` raise."""
    end: End = frame.told()
    began = known.pop(end.transaction_id, None)
    if began is None:
        raise LookupError(f"the beginning of {end.transaction_id} was dropped")
    end.outcome.body = frame.body
    return Ended(began, end)


def _without_answer(call: Call) -> Call:
    """The reading of an answer stays here: its bytes say the same."""
    return replace(call, response=replace(call.response, answer=None))
