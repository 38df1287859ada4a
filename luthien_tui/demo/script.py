"""What a demo story is made of, and how the built-in upstream finds its next line.

The upstream keeps no state of a conversation: the last message of a request (or the tool results at its end) names the reply.
So it answers any client that sends these messages, in any order, and a made-up answer to everything else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, Literal

Wire = Literal["chat", "responses", "messages", "ollama"]
Trouble = Literal["", "429", "500", "529", "slow", "cut"]
"""What goes wrong with a reply: an error at the first of two tries, a long wait, or a stream that ends early at the first."""

_REFERENCE = re.compile(r"^\[[^\]\n]{1,40}\] ")


@dataclass(frozen=True)
class Call:
    """One tool call of the model, and what the agent's tool will answer."""

    name: str
    arguments: dict[str, Any]
    result: str
    delegate: str = ""
    """Name of the story that a sub-agent plays meanwhile."""


@dataclass(frozen=True)
class Reply:
    """One answer of the model; with calls, the agent comes back with their results."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    trouble: Trouble = ""


@dataclass(frozen=True)
class Turn:
    """One thing that the user or the agent's own loop asks, and the model's answers until it is done."""

    user: str
    replies: tuple[Reply, ...]
    interrupted: bool = False
    """The agent hangs up in the middle of the last answer."""


@dataclass(frozen=True)
class Story:
    """One conversation from its first message to its last."""

    name: str
    agent: str
    wire: Wire
    model: str
    system: str
    turns: tuple[Turn, ...]
    named: bool = True
    """Whether the agent says who it is in headers; others are recognised by what they send."""
    streamed: bool = True
    first: str = ""
    """A path asked before the first turn, such as a list of models."""
    part_of: str = ""
    """The agent whose sub-agent plays it; such a story never starts on its own."""
    tags: str = ""
    """What an agent that says who it is says of the conversation, as `team:shop, ci`."""
    tools: dict[str, str] = field(default_factory=dict)
    """Name and description of each tool."""


def turn(user: str, *replies: Reply | str, interrupted: bool = False) -> Turn:
    return Turn(user, tuple(Reply(one) if isinstance(one, str) else one for one in replies), interrupted)


def call(tool: str, result: str, delegate: str = "", **arguments: Any) -> Call:
    return Call(tool, arguments, result, delegate)


def key_of(text: str) -> str:
    """The part of a message that names its reply: all but a reference such as `[2] ` at its beginning."""
    return _REFERENCE.sub("", text, count=1).strip()


def results_key(results: Iterable[str]) -> str:
    return "\n".join(results).strip()


def call_id(key: str, number: int) -> str:
    """The id of a reply's tool call: the same for the upstream that makes it up and the agent that answers it."""
    return blake2b(f"{key}\n{number}".encode(), digest_size=9).hexdigest()


def index_replies(stories: Iterable[Story]) -> dict[str, Reply]:
    """Every reply under the message that asks for it. Raises ValueError where two replies share one."""
    found: dict[str, Reply] = {}
    for story in stories:
        for one in story.turns:
            key = key_of(one.user)
            for reply in one.replies:
                if found.setdefault(key, reply) is not reply:
                    raise ValueError(f"story {story.name!r}: two replies to {key[:60]!r}")
                key = results_key(each.result for each in reply.calls)
    return found
