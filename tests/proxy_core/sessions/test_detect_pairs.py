"""What another gateway's tests expect of its sessions, each as one story; where ours are to be better the name says so."""

from __future__ import annotations

from tests.proxy_core.sessions.talk import Talk, assistant, call, system, tool, user

HELLO = user("Hello")


def test_a_conversation_is_one_session() -> None:
    talk = Talk()
    first = talk.chat(HELLO)
    second = talk.chat(HELLO, assistant("Hi there!"), user("How are you?"))
    third = talk.chat(HELLO, assistant("Hi there!"), user("How are you?"), assistant("Fine."), user("Good."))
    assert [first.session_id, second.session_id, third.session_id] == ["s-1", "s-1", "s-1"]
    assert [first.link, second.link, third.link] == ["new", "prefix", "prefix"]
    assert talk.detector.statistics | {"active": 1} == talk.detector.statistics
    assert (talk.detector.statistics["created"], talk.detector.statistics["hits"]) == (1, 2)


def test_the_same_first_message_twice_is_two_sessions() -> None:
    talk = Talk()
    assert [talk.chat(HELLO).session_id, talk.chat(HELLO).session_id] == ["s-1", "s-2"]


def test_the_same_first_message_after_an_answer_is_another_session_too() -> None:
    talk = Talk()
    talk.answer(talk.chat(HELLO), "Hi!")
    assert talk.chat(HELLO).session_id == "s-2"


def test_better_parallel_function_calls_of_the_responses_api_stay() -> None:
    talk = Talk()
    calls = [
        {"type": "function_call", "call_id": f"call_{city}", "name": "weather", "arguments": f'{{"city":"{city}"}}'}
        for city in ("Oslo", "Rome")
    ]
    outputs = [{"type": "function_call_output", "call_id": f"call_{city}", "output": "rain"} for city in ("Oslo", "Rome")]
    assert talk.responses(HELLO).session_id == talk.responses(HELLO, *calls, *outputs).session_id
    reasoning = {"type": "reasoning", "summary": [], "encrypted_content": "…"}
    again = talk.responses(HELLO, *calls, *outputs, reasoning, calls[0], outputs[0], store=False)
    assert again.session_id == "s-1"


def test_parallel_tool_calls_of_a_chat_stay() -> None:
    talk = Talk()
    talk.chat(HELLO)
    asked = assistant(None, ("call_1", "weather", "{}"), ("call_2", "time", "{}"))
    assert talk.chat(HELLO, asked, tool("call_1", "rain"), tool("call_2", "noon")).session_id == "s-1"


def test_another_last_message_after_a_turn_stays() -> None:
    talk = Talk()
    talk.chat(HELLO)
    talk.chat(HELLO, assistant("Hi"), user("How are you?"))
    assert talk.chat(HELLO, assistant("Hi"), user("How old are you?")).session_id == "s-1"


def test_the_first_turn_with_another_answer_stays() -> None:
    talk = Talk()
    talk.chat(HELLO)
    talk.chat(HELLO, assistant("Hi"), user("How are you?"))
    assert talk.chat(HELLO, assistant("Good day"), user("How are you?")).session_id == "s-1"


def test_better_a_window_that_slides_is_inferred_where_enough_is_shared() -> None:
    talk = Talk()
    said = [user("one"), assistant("1"), user("two"), assistant("2"), user("three")]
    talk.chat(*said[:1])
    talk.chat(*said[:3])
    talk.chat(*said)
    slid = talk.chat(*said[2:], assistant("3"), user("four"))
    assert (slid.session_id, slid.link) == ("s-1", "inferred")
    further = talk.chat(*said[4:], assistant("3"), user("four"), assistant("4"), user("five"))
    assert (further.session_id, further.link) == ("s-1", "inferred")
    assert talk.detector.statistics["inferred"] == 2


def test_a_window_that_shares_too_little_is_a_session_of_its_own() -> None:
    talk = Talk(min_common_messages=3)
    talk.chat(user("one"), assistant("1"), user("two"), assistant("2"), user("three"))
    assert talk.chat(user("three"), assistant("3"), user("four")).session_id == "s-2"


def test_the_reply_that_was_given_counts_as_shared() -> None:
    talk = Talk(min_common_messages=2)
    first = talk.chat(user("one"), assistant("1"), user("two"), assistant("2"), user("three"))
    talk.answer(first, "3")
    assert talk.chat(user("three"), assistant("3"), user("four")).session_id == "s-1"


def test_a_system_message_changes_nothing() -> None:
    talk = Talk()
    talk.chat(system("Be brief."), HELLO)
    assert talk.chat(system("Be brief."), HELLO, assistant("Hi"), user("More")).session_id == "s-1"


def test_a_forgotten_session_is_not_continued() -> None:
    talk = Talk(max_sessions=2)
    for text in ("one", "two", "three"):
        talk.chat(user(text))
    assert talk.chat(user("one"), assistant("1"), user("more")).session_id == "s-4"
    assert talk.detector.statistics["evicted"] == 2


def test_the_least_recently_used_is_forgotten_first() -> None:
    talk = Talk(max_sessions=2)
    talk.chat(user("one"))
    talk.chat(user("two"))
    talk.chat(user("one"), assistant("1"), user("more"))
    talk.chat(user("three"))
    assert talk.chat(user("one"), assistant("1"), user("more"), assistant("2"), user("yet more")).session_id == "s-1"
    assert talk.chat(user("two"), assistant("2"), user("more")).session_id == "s-4"


def test_an_expired_session_is_followed_by_a_new_one() -> None:
    talk = Talk(ttl_s=10)
    talk.chat(HELLO)
    talk.now = 10.5
    later = talk.chat(HELLO, assistant("Hi"), user("Still there?"))
    assert (later.session_id, later.predecessor, later.link) == ("s-2", "s-1", "new")
    assert talk.detector.statistics["expired"] == 1
    assert talk.detector.active == 1
    talk.now = 12
    follow = talk.chat(HELLO, assistant("Hi"), user("Still there?"), assistant("Yes"), user("Good"))
    assert follow.session_id == "s-2"


def test_better_twins_answered_in_another_order_keep_their_owners() -> None:
    talk = Talk()
    one, two = talk.chat(HELLO), talk.chat(HELLO)
    talk.answer(two, "Hi, I am two")
    talk.answer(one, "Hi, I am one")
    assert talk.chat(HELLO, assistant("Hi, I am two"), user("B")).session_id == two.session_id
    assert talk.chat(HELLO, assistant("Hi, I am one"), user("A")).session_id == one.session_id
    assert talk.chat(HELLO, assistant("Hi, I am two"), user("B"), assistant("b"), user("BB")).session_id == two.session_id


def test_better_of_twins_whose_answers_nobody_saw_the_latest_goes_on_first() -> None:
    talk = Talk()
    talk.chat(HELLO)
    talk.chat(HELLO)
    assert talk.chat(HELLO, assistant("y"), user("B")).session_id == "s-2"
    assert talk.chat(HELLO, assistant("x"), user("A")).session_id == "s-1"
    assert talk.chat(HELLO, assistant("y"), user("B"), assistant("b"), user("BB")).session_id == "s-2"


def test_a_twin_that_was_left_long_ago_does_not_go_on() -> None:
    talk = Talk()
    talk.answer(talk.chat(HELLO), "Hi")
    talk.now = 60
    talk.answer(talk.chat(HELLO), "Hi")
    assert talk.chat(HELLO, assistant("Hi"), user("More")).session_id == "s-2"


def test_a_twin_left_behind_takes_no_history_that_has_gone_further() -> None:
    talk = Talk()
    for _ in range(2):
        talk.answer(talk.ask("Hello"), "Yes.")
    assert talk.ask("Hello", "Yes.", "More").session_id == "s-2"
    for _ in range(2):
        assert talk.ask("Hello", "Yes.", "More", "Fine.", "And?").session_id == "s-2"


def test_better_twins_of_two_clients_are_told_by_their_keys() -> None:
    talk = Talk()
    ann, bob = {"authorization": "Bearer ann"}, {"authorization": "Bearer bob"}
    talk.answer(talk.chat(HELLO, headers=ann), "Hi")
    talk.answer(talk.chat(HELLO, headers=bob), "Hi")
    more = [HELLO, assistant("Hi"), user("More")]
    assert talk.chat(*more, headers=bob).session_id == "s-2"
    assert talk.chat(*more, headers=ann).session_id == "s-1"


def test_a_tool_loop_of_the_messages_api_stays() -> None:
    talk = Talk()
    talk.chat(HELLO)
    used = {"role": "assistant", "content": [{"type": "tool_use", "id": "toolu_1", "name": "ls", "input": {}}]}
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "a.py"}]}
    assert talk.chat(HELLO, used, result).session_id == "s-1"
    other = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "b.py"}]}
    edited = talk.chat(HELLO, used, other)
    assert edited.session_id == "s-1"
    assert edited.chain != b""


def test_a_flow_of_four_tool_calls_is_one_session() -> None:
    talk = Talk()
    history = [system("Weather."), user("Where is it warm?")]
    sessions = {talk.chat(*history).session_id}
    for number in range(4):
        history += [assistant(None, (f"call_{number}", "weather", f'{{"n":{number}}}')), tool(f"call_{number}", "20")]
        sessions.add(talk.chat(*history).session_id)
    assert sessions == {"s-1"}
    assert talk.detector.statistics["created"] == 1


def test_a_response_that_is_continued_by_its_id() -> None:
    talk = Talk()
    first = talk.responses(HELLO)
    talk.answer(first, "Hi", response_id="resp_1")
    second = talk.responses(user("More"), previous_response_id="resp_1")
    assert (second.session_id, second.link, second.chain) == ("s-1", "response", b"")
    assert talk.responses(user("More")).session_id == "s-2"


def test_responses_that_nobody_here_gave_still_tell_their_branches_apart() -> None:
    talk = Talk()
    first = talk.responses(HELLO, previous_response_id="resp_from_elsewhere")
    branch = talk.responses(user("Another way"), previous_response_id="resp_from_elsewhere")
    assert first.session_id == branch.session_id
    assert talk.responses(HELLO, previous_response_id="resp_other").session_id != first.session_id


def test_a_name_from_outside_is_taken_as_it_is() -> None:
    talk = Talk()
    named = talk.chat(HELLO, headers={"x-cylestio-conversation-id": "conv-42"})
    assert (named.session_id, named.link) == ("conv-42", "header")
    assert talk.chat(HELLO, assistant("Hi"), user("unnamed from here on")).session_id == "conv-42"


def test_calls_by_which_an_answer_is_known_again_need_no_ids() -> None:
    talk = Talk()
    one, two = talk.chat(HELLO), talk.chat(HELLO)
    talk.answer(one, calls=[call("ls", '{"path": "/a", "all": true}', "call_0")])
    talk.answer(two, calls=[call("ls", '{"path": "/b", "all": true}', "call_0")])
    listed = assistant(None, ("call_0", "ls", '{"all":true,"path":"/b"}'))
    assert talk.chat(HELLO, listed, tool("call_0", "x")).session_id == two.session_id
