"""What a replay says of changed policies, faults, secrets, holds, judges, translations and limits; live, what is sent."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from proxy_core.control.filters import parse
from proxy_core.detectors.secrets import FORMATS, redact_formats
from proxy_core.errors import ConfigurationError
from proxy_core.policies.leaked_api_key_detection import DEFAULT_PATTERNS
from proxy_core.replay.exchanges import Recording
from proxy_core.replay.from_journal import read_journal
from proxy_core.replay.live import estimate, live
from proxy_core.replay.preparing import offline_settings
from proxy_core.replay.reading import read_recordings
from proxy_core.replay.replaying import Pace, Replay, Replayed
from proxy_core.replay.restoring import STAND_INS
from proxy_core.settings import Settings
from tests.fault_payloads import TEXT
from tests.fault_upstream import Fault, FaultUpstream
from tests.gateway.asking import CHAT, MESSAGES, OLLAMA_CHAT
from tests.gateway_fixtures import RunningGateway, running_gateway, settings_for
from tests.recordings import anthropic_stream, asked, chat, chat_answer, entry, failed, har, messages, told, write_lines

DEAD = "http://127.0.0.1:9"
"""Nobody answers there; an offline replay must not even try."""
AGENT = {"user-agent": "tests/1"}


async def replayed(recording: Recording, folder: Path, pace: Pace | None = None, **sections: Any) -> list[Replayed]:
    """The recording offline, under these sections of settings."""
    folder.mkdir(exist_ok=True)
    async with Replay(offline_settings(settings_for(DEAD, **sections)), folder, pace=pace) as replay:
        return [one async for one in replay.run(recording.exchanges)]


def differences(one: Replayed) -> dict[str, tuple[str, str]]:
    return {found.kind: (found.before, found.after) for found in one.differences}


async def recording_of(gateway: RunningGateway, folder: Path) -> Recording:
    """What the gateway's http_recorder wrote, as soon as it is whole."""
    rows = await gateway.rows()
    await gateway.stop()
    found = read_recordings([folder])
    assert len(found.exchanges) == len(rows)
    assert not found.problems
    return found


def recorder(folder: Path) -> list[dict[str, Any]]:
    return [{"type": "http_recorder", "config": {"output_dir": str(folder)}}]


async def test_a_recording_of_cylestio_under_policies_says_what_they_would_have_done(tmp_path: Path) -> None:
    recording = read_recordings(
        [
            write_lines(
                tmp_path / "r.jsonl",
                asked("/v1/messages", messages("capital?", stream=True), at=0.0),
                told(anthropic_stream("The capital is Paris"), end=0.1, took_ms=100, stream=True),
                asked("/v1/chat/completions", chat("my key is AKIAIOSFODNN7EXAMPLE"), at=1.0, provider="openai"),
                told(chat_answer("noted"), end=1.1, took_ms=100),
                asked("/v1/messages", messages("late"), at=2.0),
                failed("ReadTimeout", "too late", "/v1/messages"),
            )
        ]
    )
    policies = [
        {"use": "leaked_api_key_detection"},
        {"use": "string_replacement", "params": {"replacements": [["capital", "harbour"]], "apply_to": "response"}},
    ]

    plain = await replayed(recording, tmp_path / "plain")
    changed, denied, late = await replayed(recording, tmp_path / "policies", policies=policies)

    assert [one.differences for one in plain] == [[], [], []]
    assert differences(changed) == {"text": ("The capital is Paris ", "The harbour is Paris ")}
    assert changed.outcome is not None
    assert changed.outcome.facts.verdict == "modify"
    assert len(changed.outcome.answer.chunks if changed.outcome.answer else []) > 1, "a stream stays a stream"
    assert differences(denied)["status"] == ("200", "403")
    assert denied.outcome is not None
    assert denied.outcome.facts.verdict == "deny"
    assert late.outcome is not None
    assert late.outcome.answer is not None
    assert late.outcome.answer.status == 504


async def test_har_replays_and_shows_its_tokens(tmp_path: Path) -> None:
    file = tmp_path / "a.har"
    file.write_text(json.dumps(har(entry("https://api.openai.com/v1/chat/completions", chat("hi"), chat_answer("hello")))))

    (one,) = await replayed(read_recordings([file]), tmp_path / "g")

    assert one.differences == []
    assert one.outcome is not None
    assert (one.outcome.facts.input_tokens, one.outcome.facts.output_tokens) == (10, 5)


async def test_changed_policies_show_in_verdicts_text_and_tool_calls(upstream: FaultUpstream, tmp_path: Path) -> None:
    tools = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    settings = settings_for(upstream.url, interceptors=recorder(tmp_path / "r"))
    async with running_gateway(settings, tmp_path / "a") as gateway:
        await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(stream=True, tools=tools), {**MESSAGES.headers, **AGENT})
        recording = await recording_of(gateway, tmp_path / "r")

    (one,) = await replayed(recording, tmp_path / "b", policies=[{"use": "tool_allow_deny", "params": {"deny": ["get_weather"]}}])

    found = differences(one)
    assert found["verdict"] == ("allow", "deny")
    assert found["tool_calls"][0].startswith("get_weather(")
    assert found["tool_calls"][1] == ""
    assert "get_weather" in found["text"][1]
    assert "tool_not_allowed" in found["verdicts"][1]
    assert "status" not in found


async def test_secrets_that_were_taken_out_are_found_again(upstream: FaultUpstream, tmp_path: Path) -> None:
    policies = [{"use": "leaked_api_key_detection"}]
    settings = settings_for(upstream.url, interceptors=recorder(tmp_path / "r"), policies=policies)
    async with running_gateway(settings, tmp_path / "a") as gateway:
        for secret in ("ghp_" + "a1B2" * 9, "AKIAIOSFODNN7EXAMPLE"):
            answer = await gateway.ask("POST", CHAT.path, chat(f"use {secret} now"), {**CHAT.headers, **AGENT})
            assert answer.status == 403
        recording = await recording_of(gateway, tmp_path / "r")
    assert [one.body_redacted for one in recording.exchanges] == [True, True]

    found = await replayed(recording, tmp_path / "b", policies=policies)

    assert [one.differences for one in found] == [[], []]


@pytest.mark.parametrize("kind", [kind for kind, _ in {**dict(FORMATS), **dict(DEFAULT_PATTERNS)}.items()])
def test_every_kind_of_key_has_one_that_stands_in(kind: str) -> None:
    pattern = {**dict(FORMATS), **dict(DEFAULT_PATTERNS)}[kind].encode()
    if kind in ("sk_key", "luthien_key", "private_key"):
        return  # any key has the first form; luthien's own keys are refused; the last spans lines
    assert re.search(pattern, STAND_INS[kind])
    assert redact_formats(STAND_INS[kind]) == b"[redacted]"


async def test_upstreams_that_failed_fail_again_in_the_same_words(upstream: FaultUpstream, tmp_path: Path) -> None:
    settings = settings_for(upstream.url, interceptors=recorder(tmp_path / "r"), routing={"timeouts": {"first_byte_s": 0.2}})
    async with running_gateway(settings, tmp_path / "a") as gateway:
        for fault in (Fault(stall_after=-1), Fault(reset_after=-1), Fault(garbage="?"), Fault(status=529), Fault(cut_after=2)):
            await gateway.ask("POST", CHAT.path, CHAT.bytes(stream=True), {**CHAT.headers, **AGENT, **fault.header()})
        recording = await recording_of(gateway, tmp_path / "r")
    assert {one.facts.outcome for one in recording.exchanges if one.facts} == {"error", "truncated"}

    found = await replayed(recording, tmp_path / "b", upstreams=settings.model_dump()["upstreams"])

    assert [one.differences for one in found] == [[]] * 5


class Judge:
    """A model that answers judges' questions between the tags that they ask for: what it is given, one after the other."""

    def __init__(self, *probabilities: float) -> None:
        self.left = list(probabilities)
        self.asked = 0

    async def __aenter__(self) -> Judge:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *exc: object) -> None:
        self._server.close()
        await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(re.search(rb"content-length: (\d+)", head)[1])  # type: ignore[index]
        tag = re.search(rb"<verdict-([0-9a-f]{16})>", await reader.readexactly(length))[1].decode()  # type: ignore[index]
        self.asked += 1
        said = json.dumps({"probability": self.left.pop(0), "explanation": "so it seems"})
        body = chat_answer(f"<verdict-{tag}>{said}</verdict-{tag}>")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n%b" % (len(body), body))
        await writer.drain()
        writer.close()


async def test_what_policies_asked_a_model_is_answered_as_it_was(upstream: FaultUpstream, tmp_path: Path) -> None:
    policies = [{"use": "tool_call_judge", "params": {"upstream": "judge", "model": "gpt-4o-mini"}}]
    tools = [{"name": "get_weather", "input_schema": {"type": "object"}}]
    body = MESSAGES.bytes(stream=True, tools=tools)
    async with Judge(0.9, 0.1) as judge:
        upstreams = {
            "anthropic": {"api": "anthropic", "base_url": upstream.url},
            "judge": {"api": "openai", "base_url": judge.url},
        }
        settings = settings_for(upstream.url, upstreams=upstreams, interceptors=recorder(tmp_path / "r"), policies=policies)
        async with running_gateway(settings, tmp_path / "a") as gateway:
            first = await gateway.ask("POST", MESSAGES.path, body, {**MESSAGES.headers, **AGENT})
            second = await gateway.ask("POST", MESSAGES.path, body, {**MESSAGES.headers})
            assert (b"blocked" in first.body, b"blocked" in second.body) == (True, False)
            recording = await recording_of(gateway, tmp_path / "r")
        assert [len(one.calls) for one in recording.exchanges] == [1, 1]

        found = await replayed(recording, tmp_path / "b", policies=policies, upstreams=upstreams)
        other = await replayed(
            recording,
            tmp_path / "c",
            policies=[{**policies[0], "params": {**policies[0]["params"], "threshold": 0.05}}],
            upstreams=upstreams,
        )

        assert judge.asked == 2
    assert [(one.differences, one.notes) for one in found] == [([], []), ([], [])]
    assert [differences(one).get("verdict") for one in other] == [None, ("allow", "deny")]


async def test_what_a_policy_asks_that_is_not_recorded_is_not_answered_and_said(tmp_path: Path) -> None:
    model = {"upstream": "openai", "model": "gpt-4o-mini", "instructions": "Say it politely."}
    judge = {"use": "rephrase_request", "params": {"model": model}, "on_error": "allow"}
    ask = asked("/v1/chat/completions", chat("hi"), provider="openai")
    ask["headers"]["user-agent"] = "tests/1"
    file = write_lines(tmp_path / "r.jsonl", ask, told(chat_answer("hello"), end=0.1, took_ms=1))

    (one,) = await replayed(read_recordings([file]), tmp_path / "b", policies=[judge])

    assert [note.partition(";")[0] for note in one.notes] == ["a policy asked a model beside the request"]
    assert one.differences == []
    assert one.outcome is not None
    assert one.outcome.facts.verdicts[0].reason == "judge_unavailable"


async def test_samples_that_a_policy_took_come_again_in_order(upstream: FaultUpstream, tmp_path: Path) -> None:
    policies: list[dict[str, Any]] = [
        {"use": "backend_sampling", "params": {"samples": 3, "concurrency": 1}},
        {"use": "rank_and_select_response", "params": {"heuristic": "length"}},
    ]
    settings = settings_for(upstream.url, interceptors=recorder(tmp_path / "r"), policies=policies)
    for text in ("short", "the longest of them", "middling"):
        upstream.faults.append(Fault(body=chat_answer(text).decode()))
    async with running_gateway(settings, tmp_path / "a") as gateway:
        answer = await gateway.ask("POST", CHAT.path, CHAT.bytes(), CHAT.headers)
        assert b"the longest of them" in answer.body
        recording = await recording_of(gateway, tmp_path / "r")

    (one,) = await replayed(recording, tmp_path / "b", policies=policies, upstreams=settings.model_dump()["upstreams"])

    assert (one.differences, one.notes) == ([], [])


async def test_what_limits_had_refused_is_not_sent(upstream: FaultUpstream, tmp_path: Path) -> None:
    limits = {"upstreams": {"openai": {"rpm": 1}}}
    settings = settings_for(upstream.url, interceptors=recorder(tmp_path / "r"), limits=limits)
    async with running_gateway(settings, tmp_path / "a") as gateway:
        statuses = [(await gateway.ask("POST", CHAT.path, CHAT.bytes(), {**CHAT.headers, **AGENT})).status for _ in range(2)]
        assert statuses == [200, 429]
        recording = await recording_of(gateway, tmp_path / "r")

    first, second = await replayed(recording, tmp_path / "b", limits=limits)

    assert (first.differences, first.skipped) == ([], "")
    assert second.outcome is None
    assert "limits" in second.skipped


async def test_a_hold_nobody_had_decided_is_approved_offline(tmp_path: Path) -> None:
    file = write_lines(
        tmp_path / "r.jsonl",
        asked("/v1/chat/completions", chat("hi"), provider="openai"),
        told(chat_answer("hello"), end=0.1, took_ms=100),
    )

    (one,) = await replayed(
        read_recordings([file]), tmp_path / "b", policies=[{"use": "hold_for_approval", "params": {"stage": "request"}}]
    )

    assert one.differences == []
    assert one.notes == ["it was held and the recording has no decision, so it was approved"]


async def test_a_translated_answer_is_not_translated_twice(upstream: FaultUpstream, tmp_path: Path) -> None:
    upstreams = {
        "anthropic": {"api": "anthropic", "base_url": DEAD},
        "local": {"api": "ollama", "base_url": upstream.url, "default_model": "llama3.2"},
    }
    sections: dict[str, Any] = {"upstreams": upstreams, "routing": {"default_provider": "local"}}
    settings = settings_for(upstream.url, interceptors=recorder(tmp_path / "r"), **sections)
    async with running_gateway(settings, tmp_path / "a") as gateway:
        answer = await gateway.ask("POST", MESSAGES.path, MESSAGES.bytes(stream=True), {**MESSAGES.headers, **AGENT})
        assert answer.status == 200
        recording = await recording_of(gateway, tmp_path / "r")

    (one,) = await replayed(recording, tmp_path / "b", **sections)

    assert one.differences == []
    assert [note.partition(" from")[0] for note in one.notes] == ["its answer was translated"]


async def test_the_journal_replays_too(upstream: FaultUpstream, tmp_path: Path) -> None:
    policies = [{"use": "string_replacement", "params": {"replacements": [["capital", "harbour"]]}}]
    settings = settings_for(upstream.url, policies=policies)
    async with running_gateway(settings, tmp_path / "a") as gateway:
        for asking in (CHAT, MESSAGES, OLLAMA_CHAT):
            for stream in (True, False):
                await gateway.ask("POST", asking.path, asking.bytes(stream=stream), {**asking.headers, **AGENT})
        await gateway.ask("POST", CHAT.path, CHAT.bytes(), {**CHAT.headers, **Fault(reset_after=-1).header()})
        recording = await read_journal(gateway.runtime._journal.store, parse("not model:llama*"), 100)

    upstreams = settings.model_dump()["upstreams"]
    same = await replayed(recording, tmp_path / "b", policies=policies, upstreams=upstreams)
    other = await replayed(recording, tmp_path / "c")

    assert [one.differences for one in same] == [[]] * 5
    assert [differences(one)["text"][1] for one in other[:4]] == [TEXT] * 4


async def test_headers_that_would_split_a_message_are_left_away(tmp_path: Path) -> None:
    ask = asked("/v1/chat/completions", chat("hi"), provider="openai")
    ask["headers"] |= {"x-a": "b\r\n\r\nGET /evil HTTP/1.1\r\nhost: x", "x b": "c", "": "d", "x-ü": "e", "x-c": "☃"}
    answer = told(chat_answer("hello"), end=0.1, took_ms=1)
    answer["headers"] |= {"x-evil": "a\r\n\r\nHTTP/1.1 200 OK", "transfer-encoding": "chunked", "content-length": "4"}

    (one,) = await replayed(read_recordings([write_lines(tmp_path / "r.jsonl", ask, answer)]), tmp_path / "b")

    assert one.differences == []
    assert one.outcome is not None
    assert one.outcome.answer is not None
    assert one.outcome.answer.header(b"x-evil") == b""


async def test_recorded_times_are_kept_and_overlap(tmp_path: Path) -> None:
    answer = told(chat_answer("hello"), end=0.4, took_ms=400)
    lines = [asked("/v1/chat/completions", chat("hi"), provider="openai", at=at) for at in (0.0, 0.1)]
    recording = read_recordings(
        [write_lines(tmp_path / "r.jsonl", *lines, answer, {**answer, "end_time": answer["end_time"] + 0.1})]
    )

    first, second = await replayed(recording, tmp_path / "b", Pace(speed=2.0))

    for one in (first, second):
        assert one.differences == []
        assert one.outcome is not None
        assert one.outcome.answer is not None
        assert one.outcome.answer.duration_ms is not None
        assert 190 <= one.outcome.answer.duration_ms < 1_000


# --- live ---


@pytest.fixture
def to_send(tmp_path: Path) -> Recording:
    return read_recordings(
        [
            write_lines(
                tmp_path / "live.jsonl",
                asked("/agent-workflow/w/v1/messages", messages("hi"), query="beta=true"),
                told(b'{"type":"message","content":[]}', end=0.1, took_ms=1),
                asked("/openai/v1/chat/completions", chat("hi"), at=1, provider="openai"),
                told(chat_answer("hello"), end=1.1, took_ms=1),
            )
        ]
    )


async def sent_live(settings: Settings, to: str, recording: Recording, folder: Path) -> list[Replayed]:
    way = live(settings, to)
    folder.mkdir()
    async with Replay(way.settings, folder, target=way.target) as replay:
        return [one async for one in replay.run(recording.exchanges)]


async def test_live_requests_go_to_the_named_upstream_with_its_key(
    upstream: FaultUpstream, to_send: Recording, tmp_path: Path
) -> None:
    upstreams = {
        "anthropic": {"api": "anthropic", "base_url": DEAD},
        "openai": {"api": "openai", "base_url": DEAD},
        "there": {"api": "openai", "base_url": upstream.url, "api_key": "sk-there-0123456789"},
    }

    found = await sent_live(settings_for(upstream.url, upstreams=upstreams), "there", to_send, tmp_path / "g")

    (exchange,) = [one for one in upstream.exchanges if one.target == b"/v1/chat/completions"]
    assert exchange.header_values("authorization") == ["Bearer sk-there-0123456789"]
    assert exchange.header_values("x-api-key") == []
    assert exchange.header("x-luthien-replay") is None
    assert exchange.body == chat("hi")
    assert differences(found[-1])["text"] == ("hello", TEXT)


async def test_live_requests_go_to_an_address_without_any_key(
    upstream: FaultUpstream, to_send: Recording, tmp_path: Path
) -> None:
    upstreams = {
        api: {"api": api, "base_url": DEAD, "api_key": "sk-never-to-strangers"} for api in ("openai", "anthropic", "ollama")
    }

    await sent_live(settings_for(upstream.url, upstreams=upstreams), upstream.url, to_send, tmp_path / "g")

    assert [one.target for one in upstream.exchanges] == [b"/v1/messages?beta=true", b"/v1/chat/completions"]
    assert not any(b"sk-never" in value for one in upstream.exchanges for _, value in one.headers)


async def test_what_live_requests_may_cost(to_send: Recording) -> None:
    settings = settings_for("https://api.openai.com")

    expected = await estimate(to_send.exchanges, live(settings, "openai"))

    assert expected.requests == 2
    assert expected.unknown == 1
    assert expected.usd == pytest.approx(10 * 0.15e-6 + 5 * 0.6e-6)


def test_no_such_upstream() -> None:
    with pytest.raises(ConfigurationError, match="configured are openai, anthropic, ollama"):
        live(settings_for(DEAD), "nowhere")
    with pytest.raises(ConfigurationError, match="no address"):
        live(settings_for(DEAD), "ftp://example.org")
