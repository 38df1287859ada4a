"""Requests that stand beside a conversation: retries, prefills, sub-agents, titles, memory, counts."""

from __future__ import annotations

import pytest

from proxy_core.sessions.detector import Belonging
from tests.proxy_core.sessions.talk import Message, Talk, assistant, call, system, tool, user

TITLE = system("You are a title generator. You output ONLY a thread title.")
AGENT = system("You are a coding agent.")


def test_an_opening_that_failed_and_comes_again_is_a_retry() -> None:
    talk = Talk()
    talk.fail(talk.chat(user("Hello")))
    assert talk.chat(user("Hello")).session_id == "s-1"


def test_a_failure_long_ago_is_nobodys_retry() -> None:
    talk = Talk()
    talk.fail(talk.chat(user("Hello")))
    talk.now = 301
    assert talk.chat(user("Hello")).session_id == "s-2"


def test_a_regeneration_stays_and_its_new_answer_is_known() -> None:
    talk = Talk()
    history = [user("Hello"), assistant("Hi"), user("A poem")]
    talk.answer(talk.chat(*history[:1]), "Hi")
    for text in ("roses", "violets"):
        again = talk.chat(*history)
        assert again.session_id == "s-1"
        talk.answer(again, text)
    assert talk.chat(*history, assistant("roses"), user("Go on")).session_id == "s-1"


def test_a_user_who_adds_to_an_answered_question_opens_another_session() -> None:
    talk = Talk()
    talk.answer(talk.chat(user("A question")), "An answer")
    assert talk.chat(user("A question"), user("and a rule for it")).session_id == "s-2"


def test_a_user_who_adds_to_an_unanswered_question_goes_on() -> None:
    talk = Talk()
    talk.fail(talk.chat(user("A question")))
    assert talk.chat(user("A question"), user("Are you there?")).session_id == "s-1"


def test_a_prefilled_answer_comes_back_whole() -> None:
    talk = Talk()
    talk.chat(user("As JSON"), assistant("{"))
    assert talk.chat(user("As JSON"), assistant('{"a": 1}'), user("More")).session_id == "s-1"


def test_consecutive_answers_count_as_one() -> None:
    talk = Talk()
    one, two = talk.chat(user("Hello")), talk.chat(user("Hello"))
    talk.answer(one, "first of one")
    talk.answer(two, "first of two")
    two_answers = [assistant("first of two"), assistant(None, ("call_1", "ls", "{}")), tool("call_1", "x")]
    assert talk.chat(user("Hello"), *two_answers).session_id == two.session_id


def test_branches_stay_in_their_session() -> None:
    talk = Talk()
    root = [user("Hello"), assistant("Hi")]
    talk.chat(*root[:1])
    for text in ("left", "right", "straight on"):
        assert talk.chat(*root, user(text)).session_id == "s-1"
        assert talk.chat(*root, user(text), assistant("so"), user("and then")).session_id == "s-1"


def test_memory_asked_for_in_the_middle_is_a_side_request() -> None:
    talk = Talk()
    history = [user("My name is Ada"), assistant("Hello Ada")]
    talk.answer(talk.chat(AGENT, *history[:1]), "Hello Ada")
    memory = system("You are now acting as the managed memory extraction subagent.")
    aside = talk.chat(memory, *history, user("Update the memory files"))
    assert (aside.session_id, aside.link, aside.side) == ("s-1", "prefix", True)
    on = talk.chat(AGENT, *history, user("What is my name?"))
    assert (on.session_id, on.side) == ("s-1", False)


def test_another_agent_with_the_same_opening_is_no_side_request() -> None:
    talk = Talk()
    talk.answer(talk.chat(AGENT, user("Hello")), "Hi from the first")
    other = system("You are another agent.")
    assert talk.chat(other, user("Hello"), assistant("Hi from elsewhere"), user("More")).session_id == "s-2"


@pytest.mark.parametrize("title_first", [True, False])
def test_a_title_belongs_to_the_conversation_that_it_quotes(title_first: bool) -> None:
    talk = Talk()

    def title() -> Belonging:
        return talk.chat(TITLE, user("Generate a title for this conversation:\n"), user("what files are here?"))

    def turn() -> Belonging:
        return talk.chat(AGENT, user("what files are here?"), tools=[{"type": "function"}])

    told = [title(), turn()] if title_first else [turn(), title()]
    assert told[0].session_id == told[1].session_id
    assert (told[0].link, told[1].link) == ("new", "inferred")
    assert [one.side for one in told] == [title_first, not title_first]


def test_each_of_two_conversations_has_its_title() -> None:
    talk = Talk()
    titles, turns = [], []
    for _ in range(2):
        titles.append(talk.chat(TITLE, user("Title:"), user("what files are here?")).session_id)
        turns.append(talk.chat(AGENT, user("what files are here?")).session_id)
    assert titles == turns == ["s-1", "s-2"]


def test_a_title_asked_for_by_another_program_is_apart() -> None:
    talk = Talk()
    talk.chat(AGENT, user("what files are here?"), headers={"user-agent": "one/1"})
    title = talk.chat(TITLE, user("Title:"), user("what files are here?"), headers={"user-agent": "other/1"})
    assert title.session_id == "s-2"


def test_a_sub_agent_is_told_by_the_task_it_was_given() -> None:
    talk = Talk()
    parent = talk.chat(AGENT, user("Look around"))
    talk.answer(parent, calls=[call("agent", '{"description": "Look", "prompt": "Summarise the directory"}', "call_1")])
    child = talk.chat(system("You are a general-purpose agent."), user("Summarise the directory"))
    assert (child.session_id, child.parent_session) == ("s-2", "s-1")
    deeper = talk.chat(
        system("You are a general-purpose agent."), user("Summarise the directory"), assistant("One file"), user("Which?")
    )
    assert (deeper.session_id, deeper.parent_session) == ("s-2", "s-1")


def test_a_task_that_a_sub_agent_wraps_is_found_in_it() -> None:
    talk = Talk()
    task = "Find every place where the configuration is read"
    talk.answer(talk.chat(AGENT, user("Go")), calls=[call("delegate_task", f'{{"goal": "{task}"}}')])
    wrapped = user(f"Your supervisor asks you this.\n{task}\nAnswer briefly.")
    assert talk.chat(system("You are a worker."), wrapped).parent_session == "s-1"


def test_a_call_that_was_answered_starts_nothing_more() -> None:
    talk = Talk()
    parent = talk.chat(AGENT, user("Look around"))
    talk.answer(parent, calls=[call("agent", '{"prompt": "Summarise the directory"}', "call_1")])
    asked = assistant(None, ("call_1", "agent", '{"prompt": "Summarise the directory"}'))
    talk.chat(AGENT, user("Look around"), asked, tool("call_1", "One file"))
    assert talk.chat(system("You are somebody."), user("Summarise the directory")).parent_session == ""


def test_a_header_names_the_parent() -> None:
    talk = Talk()
    named = {"x-session-id": "child", "x-parent-session-id": "parent"}
    assert talk.chat(user("Hello"), headers=named).parent_session == "parent"
    assert talk.chat(user("More"), headers={"x-session-id": "child"}).parent_session == "parent"
    assert talk.chat(user("Hello"), headers={"x-parent-session-id": "parent"}).parent_session == "parent"
    assert talk.chat(user("x"), headers={"x-session-id": "me", "x-parent-session-id": "me"}).parent_session == ""


def test_a_history_said_in_another_dialect_is_known_by_its_calls() -> None:
    talk = Talk()
    first = talk.chat(user("Weather?"))
    talk.answer(first, calls=[call("weather", "{}", "call_gKnoVx3jEQlwl5zC2TbCdVHW")])
    items: list[Message] = [
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Weather?"}]},
        {"type": "function_call", "call_id": "call_gKnoVx3jEQlwl5zC2TbCdVHW", "name": "weather", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "call_gKnoVx3jEQlwl5zC2TbCdVHW", "output": "rain"},
    ]
    moved = talk.responses(*items)
    assert (moved.session_id, moved.link) == ("s-1", "inferred")


LONG_ANSWER = "The white tower on the bluff stays to starboard until the harbour light bears due north of us. " * 3
PARTS: Message = {"role": "user", "content": [{"type": "text", "text": "Which way?"}]}


@pytest.mark.parametrize(
    "replies",
    [
        [assistant(f" {LONG_ANSWER}")],
        [assistant(f"<think>\nWest?\n</think>\n\n{LONG_ANSWER}")],
        [assistant("<think>West?</think>"), assistant(LONG_ANSWER)],
        [{"role": "assistant", "content": [*({"type": "text", "text": f"<thinking>{one}</thinking>"} for one in "ab"),
                                           {"type": "text", "text": LONG_ANSWER}]}],
    ],
    ids=["as it was", "with its reasoning", "reasoning apart", "reasoning in parts"],
)  # fmt: skip
@pytest.mark.parametrize("another", [False, True], ids=["alone", "beside another with the same opening"])
def test_a_history_said_in_another_dialect_is_known_by_the_words_of_its_answer(replies: list[Message], another: bool) -> None:
    talk = Talk()
    talk.answer(talk.chat(user("Which way?")), LONG_ANSWER)
    if another:
        talk.answer(talk.chat(PARTS), "East.")
        talk.chat(PARTS, assistant("East."), user("Why?"))
    moved = talk.chat(PARTS, *replies, user("Why so?"))
    assert (moved.session_id, moved.link) == ("s-1", "inferred")
    assert talk.chat(PARTS, *replies, user("Why so?"), assistant("So."), user("And then?")).session_id == "s-1"


def test_answers_that_every_session_may_have_tell_nothing() -> None:
    talk = Talk()
    for text in ("one", "two"):
        talk.answer(talk.chat(user(text)), LONG_ANSWER)
    talk.answer(talk.chat(user("three")), "Yes, of course.")
    assert talk.chat(user("four"), assistant(LONG_ANSWER), user("More.")).session_id == "s-4"
    assert talk.chat(user("five"), assistant("Yes, of course."), user("More.")).session_id == "s-5"


def test_ids_that_every_session_has_tell_nothing() -> None:
    talk = Talk()
    for text in ("one", "two"):
        talk.answer(talk.chat(user(text)), calls=[call("ls", "{}", "call_0000000000000001")])
    asked = assistant(None, ("call_0000000000000001", "ls", "{}"))
    assert talk.chat(user("three"), asked, tool("call_0000000000000001", "x")).session_id == "s-3"


def test_a_count_of_tokens_opens_no_session() -> None:
    talk = Talk()
    body = {"model": "m", "messages": [user("Hello")]}
    counted = talk.send(body, turn=False)
    assert (counted.session_id, counted.link) == ("", "none")
    assert talk.send(body).session_id == "s-1"
    assert talk.send(body, turn=False).session_id == "s-1"
