"""Where requests go: Policy Mesh's own cases, the order of the rules, and that nothing but question and rules counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxy_core.routing.decision import RULES, Candidate, Question, RoutingRules, decide
from proxy_core.routing.keywords import find_keyword, usable_keywords
from proxy_core.routing.reasons import Reason

CLOUD, LOCAL = Candidate("openai", local=False, takes=True), Candidate("ollama", local=True, takes=True)
ELSEWHERE = Candidate("anthropic", local=False, takes=True)


def rules(keywords: list[str] | None = None, **more: Any) -> RoutingRules:
    return RoutingRules(keywords=usable_keywords(keywords or []), **more)


def asked(prompt: str = "hello", *, texts: tuple[str, ...] | None = None, **more: Any) -> Question:
    more = {"upstreams": (CLOUD, ELSEWHERE, LOCAL), "usual": "openai", **more}
    return Question(texts=texts or (prompt,), last_user=prompt, **more)


USD = {"max_usd_for_local": 0.05, "input_usd_per_1m_tokens": 20.0}


@pytest.mark.parametrize(
    ("configured", "prompt", "upstream", "reason"),
    [
        (rules(["internal", "confidential"]), "This is internal data.", "ollama", Reason.SENSITIVE_KEYWORD_MATCH),
        (rules(["secret"]), "TOP SECRET report", "ollama", Reason.SENSITIVE_KEYWORD_MATCH),
        (rules(["secret"], max_prompt_length_for_local=500), "secret", "ollama", Reason.SENSITIVE_KEYWORD_MATCH),
        (rules(max_prompt_length_for_local=500), "x" * 100, "ollama", Reason.COST_PREFER_LOCAL),
        (rules(max_prompt_length_for_local=100), "x" * 100, "ollama", Reason.COST_PREFER_LOCAL),
        (rules(max_prompt_length_for_local=50, default_provider="public"), "x" * 100, "openai", Reason.DEFAULT),
        (rules(max_prompt_length_for_local=50), "x" * 100, "openai", Reason.DEFAULT),
        (rules(max_prompt_length_for_local=50, default_provider="local"), "x" * 100, "ollama", Reason.DEFAULT),
        (rules(**USD), "x" * 4_000, "ollama", Reason.COST_PREFER_LOCAL),
        (rules(**USD), "x" * 10_001, "openai", Reason.DEFAULT),
        (rules(**USD, max_prompt_length_for_local=100_000), "x" * 10_001, "openai", Reason.DEFAULT),
        (rules(max_usd_for_local=0.05, max_prompt_length_for_local=50), "x" * 25, "ollama", Reason.COST_PREFER_LOCAL),
        (rules(max_usd_for_local=0.05, max_prompt_length_for_local=50), "x" * 100, "openai", Reason.DEFAULT),
        (rules(max_usd_for_local=0, input_usd_per_1m_tokens=1), "x", "openai", Reason.DEFAULT),
        (rules(max_usd_for_local=0, input_usd_per_1m_tokens=1), "", "ollama", Reason.COST_PREFER_LOCAL),
        (rules(default_provider="anthropic"), "hello", "anthropic", Reason.DEFAULT),
        (rules(), "hello", "openai", Reason.DEFAULT),
    ],
)
def test_a_prompt_goes_where_policy_mesh_would_send_it(
    configured: RoutingRules, prompt: str, upstream: str, reason: Reason
) -> None:
    decision = decide(asked(prompt), configured)
    assert (decision.upstream, decision.reasons) == (upstream, (reason,))
    assert decision == decide(asked(prompt), configured)


@pytest.mark.parametrize(("last_user_only", "upstream"), [(False, "ollama"), (True, "openai")])
def test_a_keyword_said_earlier_counts_unless_only_the_last_message_is_asked_for(last_user_only: bool, upstream: str) -> None:
    question = asked("and now?", texts=("you know the internal plans", "and now?"))
    assert decide(question, rules(["internal"], last_user_only=last_user_only)).upstream == upstream


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("internal", "ＩＮＴＥＲＮＡＬ"),
        ("internal", "inter\u200bnal"),
        ("straße", "STRASSE"),
        ("café", "cafe\u0301"),
        ("project  x", "Project\n X?"),
        ("internal", "internal_plan.md"),
        ("内部", "这是内部文件"),
        ("c++", "only C++!"),
        ("ﬁle", "file"),
    ],
)
def test_a_keyword_is_found_however_it_is_written(keyword: str, text: str) -> None:
    assert find_keyword([text], usable_keywords([keyword]), whole_words=True) == 0


@pytest.mark.parametrize(("keyword", "text"), [("class", "classified"), ("art", "start"), ("é", "été"), ("x", "x1")])
def test_a_part_of_a_word_counts_only_where_that_is_asked_for(keyword: str, text: str) -> None:
    words = usable_keywords([keyword])
    assert find_keyword([text], words, whole_words=True) is None
    assert find_keyword([text], words, whole_words=False) == 0


def test_blank_keywords_are_no_keywords() -> None:
    assert usable_keywords(["", "  ", "\u200b", " Secret ", "secret"]) == ("secret",)


def test_a_keyword_beats_the_path_the_model_and_a_policy() -> None:
    configured = rules(["internal"], models=(("gpt-*", "openai"),))
    for more in ({"asked": "openai"}, {"model": "gpt-4o"}, {"asked": "anthropic", "asked_by": Reason.BACKEND_SET}):
        decision = decide(asked("internal", **more), configured)
        assert (decision.upstream, decision.rule) == ("ollama", "sensitivity")
        assert "forbidden" in [said.outcome for said in decision.considered]


def test_without_a_local_upstream_that_can_take_it_a_keyword_sends_a_request_nowhere() -> None:
    unable = Candidate("ollama", local=True, takes=False)
    decision = decide(asked("internal", upstreams=(CLOUD, unable)), rules(["internal"]))
    assert (decision.upstream, decision.rule) == ("", "sensitivity")
    assert decision.reasons == (Reason.SENSITIVE_KEYWORD_MATCH, Reason.CAPABILITY_MISSING)


def test_what_cannot_be_read_stays_local_where_keywords_are_configured() -> None:
    question = Question(upstreams=(CLOUD, LOCAL), usual="openai", texts=None)
    assert decide(question, rules(["internal"])).reasons == (Reason.CONTENT_UNREADABLE,)
    assert decide(question, rules(max_prompt_length_for_local=0, default_provider="public")).upstream == "ollama"
    assert decide(question, rules(default_provider="public")).upstream == "openai"


def test_a_rule_whose_upstream_cannot_take_the_request_is_passed_over_and_named() -> None:
    unable = Candidate("ollama", local=True, takes=False)
    decision = decide(asked(upstreams=(CLOUD, unable)), rules(max_prompt_length_for_local=500))
    assert (decision.upstream, decision.reasons) == ("openai", (Reason.DEFAULT, Reason.CAPABILITY_MISSING))
    everything_fails = decide(asked(upstreams=(CLOUD, unable)), rules(default_provider="ollama"))
    assert (everything_fails.upstream, everything_fails.reasons) == ("openai", (Reason.DEFAULT, Reason.CAPABILITY_MISSING))


def test_embeddings_stay_with_their_model_for_cost_and_default() -> None:
    decision = decide(asked(generates=False), rules(max_prompt_length_for_local=500, default_provider="local"))
    assert (decision.upstream, decision.reasons) == ("openai", (Reason.DEFAULT,))


def test_models_and_tags_choose() -> None:
    configured = rules(models=(("llama*", "ollama"), ("*", "anthropic")), tags=(("team:legal", "ollama"), ("debug", "openai")))
    assert decide(asked(model="llama3.2"), configured).reasons == (Reason.EXPLICIT_MODEL,)
    assert decide(asked(model="gpt-4o"), configured).upstream == "anthropic"
    by_tag = decide(asked(tags={"team": "legal"}), configured)
    assert (by_tag.upstream, by_tag.reasons) == ("ollama", (Reason.TAG_RULE,))
    assert decide(asked(tags={"team": "sales"}), configured).rule == "default"
    assert decide(asked(tags={"debug": "1"}), configured).rule == "tag"


def test_every_rule_says_something_and_quotes_nothing() -> None:
    decision = decide(asked("my internal plan", model="m"), rules(["internal"], max_prompt_length_for_local=500))
    assert tuple(said.rule for said in decision.considered) == RULES
    assert [said.outcome for said in decision.considered].count("decides") == 1
    assert decision.considered[4].outcome == "not reached"
    assert "internal" not in repr(decision)


names = st.sampled_from(["openai", "anthropic", "ollama", "spare"])
words = st.text(alphabet="ab internal\u200b_", max_size=30)
some_rules = st.builds(
    RoutingRules,
    keywords=st.lists(st.sampled_from(["internal", "ab"]), max_size=2).map(usable_keywords),
    whole_words=st.booleans(),
    last_user_only=st.booleans(),
    models=st.lists(st.tuples(st.sampled_from(["m", "m*", "*"]), names), max_size=2).map(tuple),
    tags=st.lists(st.tuples(st.sampled_from(["t", "t:1"]), names), max_size=2).map(tuple),
    max_prompt_length_for_local=st.none() | st.integers(0, 20),
    max_usd_for_local=st.none() | st.floats(0, 1),
    input_usd_per_1m_tokens=st.none() | st.floats(0.1, 100),
    default_provider=st.sampled_from(["", "local", "public"]) | names,
)
some_questions = st.builds(
    Question,
    upstreams=st.tuples(
        *(st.builds(Candidate, st.just(name), st.booleans(), st.booleans()) for name in ("openai", "ollama", "spare"))
    ),
    usual=st.sampled_from(["", "openai", "ollama"]),
    asked=st.just("") | names,
    model=st.sampled_from(["", "m", "m1", "other"]),
    tags=st.dictionaries(st.just("t"), st.sampled_from(["", "1"])),
    texts=st.none() | st.lists(words, max_size=3).map(tuple),
    last_user=words,
    generates=st.booleans(),
)


@given(some_questions, some_rules)
def test_a_decision_follows_from_question_and_rules_alone(question: Question, configured: RoutingRules) -> None:
    decision = decide(question, configured)
    assert decision == decide(question, configured)
    assert decision.reasons
    assert decision.rule in RULES
    able = {one.name for one in question.upstreams if one.takes}
    assert decision.upstream in able or not decision.upstream
    assert tuple(said.rule for said in decision.considered) == RULES


@given(some_questions, some_rules)
def test_a_rule_is_taken_only_where_every_rule_before_it_could_not_be(question: Question, configured: RoutingRules) -> None:
    decision = decide(question, configured)
    outcomes = [said.outcome for said in decision.considered]
    if "decides" in outcomes:
        at = outcomes.index("decides")
        assert RULES[at] == decision.rule
        assert set(outcomes[:at]) <= {"passes", "unable", "forbidden"}
        assert set(outcomes[at + 1 :]) <= {"passes", "not reached"}
    assert (Reason.CAPABILITY_MISSING in decision.reasons) == ("unable" in outcomes or not decision.upstream)


@given(some_questions, some_rules)
def test_a_keyword_never_leaves(question: Question, configured: RoutingRules) -> None:
    texts = (question.last_user,) if configured.last_user_only else question.texts
    unknown = question.texts is None and bool(configured.keywords)
    if unknown or find_keyword(texts or (), configured.keywords, whole_words=configured.whole_words) is not None:
        upstream = decide(question, configured).upstream
        assert not upstream or upstream in {one.name for one in question.upstreams if one.local}


@given(some_rules, some_rules)
def test_rules_that_differ_have_different_digests(one: RoutingRules, other: RoutingRules) -> None:
    assert (one == other) == (one.digest == other.digest)


@pytest.mark.parametrize("more", [{}, {"asked": "openai"}, {"model": "gpt-5"}, {"tags": {"team": "a"}}, {"generates": False}])
def test_an_operator_who_keeps_everything_local_is_asked_before_all_rules(more: dict[str, Any]) -> None:
    forced = rules(["secret"], models=(("gpt*", "openai"),), tags=(("team", "openai"),), force_local=True)
    decision = decide(asked("a secret", **more), forced)
    assert (decision.upstream, decision.rule, decision.reasons) == ("ollama", "operator", (Reason.OPERATOR_OVERRIDE,))
    assert decision.considered[0].rule == "operator"


def test_what_no_local_upstream_takes_goes_nowhere_while_everything_is_kept_local() -> None:
    only_cloud = decide(asked(upstreams=(CLOUD, Candidate("ollama", local=True, takes=False))), rules(force_local=True))
    assert (only_cloud.upstream, only_cloud.rule) == ("", "operator")
    assert Reason.CAPABILITY_MISSING in only_cloud.reasons
