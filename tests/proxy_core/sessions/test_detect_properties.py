"""Random conversations in every dialect: each stays one session, and no two become one."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_core.sessions.detector import Belonging
from proxy_core.wire.conversation import Block, TextBlock, ToolCallBlock
from tests.proxy_core.sessions.talk import Talk

Turn = tuple[str, list[tuple[str, str]], str]
"""What the user says, the tools that the model calls with their results, what the model says in the end."""
Wire = Callable[[list[Turn], int], tuple[dict[str, Any], list[list[Block]]]]

words = st.sampled_from(["yes", "no", "go on", "ls", "error", "{}", 'a "quoted" text', "naïve\n", "role user"])
turns = st.lists(st.tuples(words, st.lists(st.tuples(words, words), max_size=3), words), min_size=1, max_size=5)


def _chat(turn: Turn, place: int) -> list[list[dict[str, Any]]]:
    said, calls, answer = turn
    listed = [
        {"id": f"call_{place}_{at}", "type": "function", "function": {"name": "sh", "arguments": json.dumps({"a": one})}}
        for at, (one, _) in enumerate(calls)
    ]
    steps: list[list[dict[str, Any]]] = [[{"role": "user", "content": said}]]
    if calls:
        results = [{"role": "tool", "tool_call_id": f"call_{place}_{at}", "content": two} for at, (_, two) in enumerate(calls)]
        steps += [[{"role": "assistant", "content": None, "tool_calls": listed}], results]
    return [*steps, [{"role": "assistant", "content": answer}]]


def _messages(turn: Turn, place: int) -> list[list[dict[str, Any]]]:
    said, calls, answer = turn
    steps: list[list[dict[str, Any]]] = [[{"role": "user", "content": said}]]
    if calls:
        used = [
            {"type": "tool_use", "id": f"toolu_{place}_{at}", "name": "sh", "input": {"a": one}}
            for at, (one, _) in enumerate(calls)
        ]
        results = [
            {"type": "tool_result", "tool_use_id": f"toolu_{place}_{at}", "content": two} for at, (_, two) in enumerate(calls)
        ]
        steps += [[{"role": "assistant", "content": used}], [{"role": "user", "content": results}]]
    return [*steps, [{"role": "assistant", "content": [{"type": "text", "text": answer}]}]]


def _responses(turn: Turn, place: int) -> list[list[dict[str, Any]]]:
    said, calls, answer = turn
    steps: list[list[dict[str, Any]]] = [[{"type": "message", "role": "user", "content": [{"type": "input_text", "text": said}]}]]
    if calls:
        asked = [
            {"type": "function_call", "call_id": f"call_{place}_{at}", "name": "sh", "arguments": json.dumps({"a": one})}
            for at, (one, _) in enumerate(calls)
        ]
        results = [
            {"type": "function_call_output", "call_id": f"call_{place}_{at}", "output": two} for at, (_, two) in enumerate(calls)
        ]
        steps += [[{"type": "reasoning", "summary": []}, *asked], results]
    return [*steps, [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": answer}]}]]


def _ollama(turn: Turn, place: int) -> list[list[dict[str, Any]]]:
    said, calls, answer = turn
    steps: list[list[dict[str, Any]]] = [[{"role": "user", "content": said}]]
    if calls:
        listed = [{"function": {"name": "sh", "arguments": {"a": one}}} for one, _ in calls]
        results = [{"role": "tool", "content": two} for _, two in calls]
        steps += [[{"role": "assistant", "content": "", "tool_calls": listed}], results]
    return [*steps, [{"role": "assistant", "content": answer}]]


DIALECTS = {
    "chat": (_chat, "messages"),
    "messages": (_messages, "messages"),
    "responses": (_responses, "input"),
    "ollama": (_ollama, "messages"),
}


class Conversation:
    """One conversation of one dialect, request by request."""

    def __init__(self, talk: Talk, dialect: str, said: list[Turn]) -> None:
        self.talk = talk
        build, self.field = DIALECTS[dialect]
        self.steps = [step for place, turn in enumerate(said) for step in build(turn, place)]
        self.answers = [block for turn in said for block in _answers(turn)]
        self.at = 0
        self.sessions: list[str] = []

    @property
    def over(self) -> bool:
        return self.at >= len(self.steps)

    def go_on(self) -> Belonging:
        """The next request and its answer."""
        history = [entry for step in self.steps[: self.at + 1] for entry in step]
        told = self.talk.send({"model": "m", "system": "Be kind.", self.field: history})
        self.talk.detector.answered(told.session_id, "", point=told.chain, blocks=self.answers[self.at // 2])
        self.sessions.append(told.session_id)
        self.at += 2
        return told


def _answers(turn: Turn) -> list[list[Block]]:
    _, calls, answer = turn
    used: list[Block] = [ToolCallBlock("", "sh", json.dumps({"a": one})) for one, _ in calls]
    last: list[Block] = [TextBlock(answer)]
    return [used, last] if calls else [last]


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=60, deadline=None)
@given(first=turns, second=turns, seed=st.integers(0, 1_000))
def test_two_conversations_at_once_are_two_sessions(dialect: str, first: list[Turn], second: list[Turn], seed: int) -> None:
    talk = Talk()
    both = [Conversation(talk, dialect, first), Conversation(talk, dialect, second)]
    dice = random.Random(seed)
    while left := [one for one in both if not one.over]:
        dice.choice(left).go_on()
    one, other = (set(conversation.sessions) for conversation in both)
    if _alike(*both):
        # Nothing tells them apart for a while: still there are two sessions, and nothing is lost.
        assert len(one | other) == 2
    else:
        assert (len(one), len(other), len(one & other)) == (1, 1, 0)


def _alike(one: Conversation, other: Conversation) -> bool:
    """Whether what follows the first answer could belong to either."""
    return one.steps[:2] == other.steps[:2]


@pytest.mark.parametrize("dialect", DIALECTS)
@settings(max_examples=40, deadline=None)
@given(said=turns, seed=st.integers(0, 1_000))
def test_a_conversation_with_repeats_and_edits_is_one_session(dialect: str, said: list[Turn], seed: int) -> None:
    talk = Talk()
    conversation = Conversation(talk, dialect, said)
    dice = random.Random(seed)
    conversation.go_on()
    while not conversation.over:
        conversation.go_on()
        if dice.random() < 0.5:
            conversation.at -= 2
            conversation.go_on()
        if dice.random() < 0.5:
            kept = conversation.steps[conversation.at - 2]
            conversation.steps[conversation.at - 2] = [{"role": "user", "content": "something else"}]
            conversation.at -= 2
            conversation.go_on()
            conversation.steps[conversation.at - 2] = kept
    assert set(conversation.sessions) == {"s-1"}


strange = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from(["assistant", "user", "function_call", ""]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["role", "type", "content", "tool_calls", "function", "arguments", "name", "text", "call_id", "input"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(
    bodies=st.lists(
        st.dictionaries(st.sampled_from(["messages", "input", "prompt", "system", "previous_response_id", "metadata"]), strange),
        min_size=1,
        max_size=4,
    ),
    marked=st.booleans(),
)
def test_strange_histories_are_told_without_an_error(bodies: list[dict[str, Any]], marked: bool) -> None:
    talk = Talk()
    for body in bodies:
        messages = body.get("messages")
        if isinstance(messages, list) and marked:
            messages = body["messages"] = [{"role": "user", "content": "twin", "cache_control": None}, *messages]
        for longer in (body, {**body, "messages": [*messages, *messages]} if isinstance(messages, list) else body):
            told = talk.send(longer)
            talk.detector.answered(
                told.session_id, "resp_1", point=told.chain, blocks=[ToolCallBlock("", "task", '{"prompt": 7}')]
            )
            assert (told.link == "none") is (told.session_id == "")
