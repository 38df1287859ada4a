"""Strings are replaced as in the whole text, wherever a stream is cut."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from proxy_core.policies.string_replacement import (
    Replacer,
    StringReplacementParams,
    StringReplacementPolicy,
    capitalized_like,
    folded,
    replaced,
)
from proxy_core.policies.testing import assert_chunking_invariant, chunking_strategy, context_for, run_request, run_response
from proxy_core.wire.dialects import Operation


def policy(*pairs: tuple[str, str], **more: object) -> StringReplacementPolicy:
    return StringReplacementPolicy(StringReplacementParams.model_validate({"replacements": list(pairs), **more}))


def streamed(pieces: Sequence[str], pairs: list[tuple[str, str]], match_capitalization: bool = False) -> str:
    replacer = Replacer(pairs, match_capitalization)
    return "".join([*map(replacer.feed, pieces), replacer.finish()])


class TestTheWholeText:
    def test_each_pair_works_on_what_the_one_before_left(self) -> None:
        assert replaced("foobar", [("foo", "barbar"), ("bar", "y")], False) == ("yyy", 4)

    def test_capitals_of_what_was_found_are_taken_over(self) -> None:
        assert replaced("Hello HELLO hello", [("hello", "hi")], True) == ("Hi HI hi", 3)

    @pytest.mark.parametrize(
        ("found", "new", "expected"),
        [
            ("HELLO", "world", "WORLD"),
            ("hello", "WORLD", "world"),
            ("Hello", "world", "World"),
            ("cOOl", "radicAL", "rADicAL"),
            ("", "WORLD", "world"),
            ("12", "ab", "ab"),
            ("ÄÖ", "straße", "STRASSE"),
        ],
    )
    def test_the_forms_of_capitals(self, found: str, new: str, expected: str) -> None:
        assert capitalized_like(found, new) == expected

    def test_a_replacement_that_changes_nothing_is_not_counted(self) -> None:
        assert replaced("aaa", [("a", "a")], False) == ("aaa", 0)

    def test_without_capitals_the_string_is_taken_as_it_is(self) -> None:
        assert replaced("Hello hello", [("hello", "x")], False) == ("Hello x", 1)

    @given(st.text())
    def test_folding_keeps_every_character_in_its_place(self, text: str) -> None:
        assert folded(text) == "".join(map(folded, text))
        assert len(folded(text)) == len(text)

    @pytest.mark.parametrize("text", ["İstanbul", "STRAẞE straße", "ﬁne", "ΣΑΣ σας", "K"])
    def test_letters_whose_small_form_is_longer_move_nothing(self, text: str) -> None:
        assert replaced(text + " end", [("end", "x")], True) == (text + " x", 1)
        assert replaced("<" + text + ">", [(text.swapcase() if len(text.swapcase()) == len(text) else text, "y")], True)[1] == 1


class TestEveryCut:
    def test_shorter_replacements_do_not_make_new_matches_of_what_has_passed(self) -> None:
        assert streamed(["ab", "b"], [("ab", "a")]) == streamed(["abb"], [("ab", "a")]) == "ab"

    def test_a_match_over_two_pieces(self) -> None:
        assert streamed(["say hel", "lo there"], [("hello", "goodbye")]) == "say goodbye there"

    def test_single_characters_hold_nothing_back(self) -> None:
        replacer = Replacer([("a", "x")])
        assert [replacer.feed(piece) for piece in "banana"] == list("bxnxnx")
        assert replacer.held_chars == 0

    def test_only_what_may_become_a_match_is_held_back(self) -> None:
        replacer = Replacer([("hello", "goodbye")])
        assert replacer.feed("oh he") == "oh "
        assert replacer.held_chars == 2
        assert replacer.feed("r") == "her"
        assert replacer.held_chars == 0

    def test_a_match_at_the_end_and_a_beginning_that_stays_one(self) -> None:
        assert streamed(["good bye"], [("bye", "day")]) == "good day"
        assert streamed(["good by"], [("bye", "day")]) == "good by"

    @given(st.data())
    def test_any_pairs_any_text_any_cut(self, data: st.DataObject) -> None:
        word = st.text("abA", min_size=1, max_size=4)
        pairs = data.draw(st.lists(st.tuples(word, st.text("abcA", max_size=4)), min_size=1, max_size=3))
        text = data.draw(st.text("abA", max_size=20))
        match = data.draw(st.booleans())
        expected = text
        for old, new in pairs:
            expected = replaced(expected, [(old, new)], True)[0] if match else expected.replace(old, new)
        assert streamed(data.draw(chunking_strategy(text)), pairs, match) == expected

    @given(st.data())
    def test_any_characters(self, data: st.DataObject) -> None:
        text = data.draw(st.text(max_size=30))
        cut = data.draw(st.integers(0, max(0, len(text) - 1)))
        old = text[cut : cut + data.draw(st.integers(1, 5))] or "x"
        pieces = data.draw(chunking_strategy(text))
        assert streamed(pieces, [(old, "")]) == text.replace(old, "")
        assert streamed(pieces, [(old, "•")], True) == replaced(text, [(old, "•")], True)[0]


class TestInAnswers:
    @pytest.mark.parametrize("operation", [Operation.CHAT, Operation.MESSAGES, Operation.RESPONSES, Operation.OLLAMA_CHAT])
    def test_an_answer_is_the_same_in_a_whole_and_in_every_cut(self, operation: Operation) -> None:
        found = assert_chunking_invariant(
            policy(("zero\u200bwidth", "seen"), ("😀", ":-)")), "a zero\u200bwidth 😀 word 😀", operation=operation
        )
        assert found == "a seen :-) word :-)"

    async def test_the_verdict_counts_once_for_the_whole_answer(self) -> None:
        for stream in (False, True):
            outcome = await run_response(policy(("foo", "barbar"), ("bar", "y")), pieces=["fo", "obar"], stream=stream)
            assert outcome.text == "yyy"
            assert (outcome.verdict.action, outcome.verdict.reason) == ("modify", "text_replaced")
            assert outcome.verdict.detail == {
                "blocks_modified": 1,
                "total_replacements": 4,
                "original_length": 6,
                "transformed_length": 3,
            }

    async def test_an_answer_without_a_match_is_untouched(self) -> None:
        outcome = await run_response(policy(("foo", "bar")), text="nothing here")
        assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "passed")

    async def test_a_text_that_grows_beyond_all_bounds_is_a_fault(self) -> None:
        grows = [("a", "a" * 100_000), ("a", "a" * 100_000)]
        outcome = await run_response(policy(*grows), text="aaaa")
        assert outcome.denied is not None
        assert outcome.verdict.reason == "policy_oversized"


class TestInRequests:
    async def test_texts_are_replaced_and_the_rest_keeps_its_bytes(self) -> None:
        body = b'{"model":"m", "n": 1.0, "messages":[{"role":"user","content":"tell \\u0042ob"}]}'
        outcome = await run_request(policy(("Bob", "Alice"), apply_to="both"), context_for(Operation.CHAT, body))
        assert json.loads(outcome.body)["messages"] == [{"role": "user", "content": "tell Alice"}]
        assert b"1.0" in outcome.body
        assert outcome.verdict.detail["total_replacements"] == 1

    async def test_an_answers_policy_leaves_requests_alone(self) -> None:
        outcome = await run_request(policy(("Hello", "x")), context_for(text="Hello"))
        assert outcome.text == "Hello"
        assert outcome.verdict.ran == "skipped"

    async def test_a_requests_policy_leaves_answers_alone(self) -> None:
        outcome = await run_response(policy(("Hello", "x"), apply_to="request"), text="Hello")
        assert outcome.text == "Hello"
        assert outcome.verdict.ran == "skipped"


@pytest.mark.parametrize(
    "params",
    [
        {"replacements": [["foo"]]},
        {"replacements": [["a", "b", "c"]]},
        {"replacements": [[]]},
        {"replacements": [["foo", 123]]},
        {"replacements": [["", "x"]]},
        {"replacements": [["a", "b"]], "apply_to": "elsewhere"},
        {"replacements": [["a", "b"]], "unknown": 1},
        {},
    ],
)
def test_wrong_parameters_are_refused(params: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        StringReplacementParams.model_validate(params)
