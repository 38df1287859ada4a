"""`luthien replay`: what it prints, where it asks, and its exit codes; hostile text stays text."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
from pathlib import Path

import pytest

from proxy_core.interceptors.recording_format import Facts, Request, Response, UpstreamAnswer, body_of, write_record
from tests.fault_upstream import FaultUpstream
from tests.luthien_tui.command import COMMAND, clean_environ, luthien
from tests.recordings import anthropic_stream, asked, chat, chat_answer, messages, told, write_lines

HOSTILE = "before \x1b]0;owned\x07 capital \u202e after"
CONFIG = """
policies:
  - {use: string_replacement, params: {replacements: [[capital, harbour]], apply_to: response}}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a recording of two transactions, one of which the policy of `luthien.yaml` changes."""
    (tmp_path / "luthien.yaml").write_text(CONFIG)
    (tmp_path / "recordings").mkdir()
    write_lines(
        tmp_path / "recordings" / "recording_001.jsonl",
        asked("/v1/messages", messages("hi", stream=True), at=0.0),
        told(anthropic_stream("Nothing to see"), end=0.1, took_ms=100, stream=True),
        asked("/v1/chat/completions", chat("hi"), at=1.0, provider="openai"),
        told(chat_answer(HOSTILE), end=1.1, took_ms=100),
    )
    return tmp_path


def test_without_policies_nothing_differs(folder: Path) -> None:
    done = luthien(folder, "replay", "recordings", "--check")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "2 of 2 transactions replayed: 2 the same, 0 different",
        "  verdicts: allow 2",
        "  tokens: 22 in, 14 out",
        "  cost: $0.0001",
    ]
    assert not (folder / "data").exists(), "a replay leaves nothing behind"


def test_with_policies_it_says_what_differs(folder: Path) -> None:
    done = luthien(folder, "replay", "recordings", "--config", "luthien.yaml")

    assert done.returncode == 0
    assert "2 of 2 transactions replayed: 1 the same, 1 different (text 1)" in done.stdout
    assert "  text        before ␛]0;owned␇ capital ⟨U+202E⟩ after → before ␛]0;owned␇ harbour ⟨U+202E⟩ after" in done.stdout
    assert "\x1b" not in done.stdout
    assert "\u202e" not in done.stdout
    assert luthien(folder, "replay", "recordings", "--config", "luthien.yaml", "--check").returncode == 1


def test_long_texts_are_shown_where_they_differ_or_as_a_diff(folder: Path) -> None:
    text = "\n".join(f"line {number} of a long answer" for number in range(20))
    answer = told(chat_answer(f"{text}\nthe capital\n{text}"), end=0.1, took_ms=100)
    file = write_lines(folder / "long.jsonl", asked("/v1/chat/completions", chat("hi"), provider="openai"), answer)

    short = luthien(folder, "replay", str(file), "--config", "luthien.yaml")
    whole = luthien(folder, "replay", str(file), "--config", "luthien.yaml", "--diff")

    assert max(map(len, short.stdout.splitlines())) < 260
    assert "the capital" in short.stdout
    assert "    -the capital\n    +the harbour\n" in whole.stdout
    assert whole.stdout.count("of a long answer") == 6


def test_of_very_long_texts_a_part_is_compared(folder: Path) -> None:
    text = "".join(f"{number} of the same\n" for number in range(9_000)) + "".join(f"{n} capital\n" for n in range(20_000))
    answer = told(chat_answer(text), end=0.1, took_ms=100)
    file = write_lines(folder / "long.jsonl", asked("/v1/chat/completions", chat("hi"), provider="openai"), answer)

    done = luthien(folder, "replay", str(file), "--config", "luthien.yaml", "--diff")

    assert "     8999 of the same\n    -0 capital\n" in done.stdout
    assert 400 < done.stdout.count("\n") < 420


def test_interrupted_it_sums_what_was_replayed(folder: Path) -> None:
    command = [*COMMAND, "replay", "recordings", "--json", "--delay", "3000"]
    with subprocess.Popen(command, cwd=folder, env=clean_environ(folder), stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        first = json.loads(running.stdout.readline())
        running.send_signal(signal.SIGINT)
        last = json.loads(running.stdout.read())

    assert first["path"] == "/v1/messages"
    assert (last["summary"]["transactions"], last["summary"]["replayed"]) == (2, 1)
    assert running.returncode == 130


def test_what_a_client_left_is_in_no_sum(folder: Path) -> None:
    body = body_of(chat("hi"))
    ended = Facts(outcome="cancelled", verdict="modify", output_tokens=2, upstream="openai")
    said = UpstreamAnswer(name="openai", api="openai", status_code=200)
    (folder / "left.jsonl").write_bytes(
        write_record(Request(format=1, transaction_id="t1", path="/v1/chat/completions", body=body))
        + write_record(
            Response(format=1, transaction_id="t1", status_code=200, body=body_of(chat_answer("a")), upstream=said, facts=ended)
        )
    )

    done = luthien(folder, "replay", "left.jsonl", "--check")

    assert done.stdout.splitlines() == [
        "1 of 1 transactions replayed: 1 the same, 0 different",
        "  1 had a client that left; they are in no sum",
    ]


def test_json_is_a_line_for_each_transaction_and_one_for_all(folder: Path) -> None:
    done = luthien(folder, "replay", "recordings", "--config", "luthien.yaml", "--json")

    assert done.stdout.isascii()
    first, second, last = (json.loads(line) for line in done.stdout.splitlines())
    assert (first["differences"], first["verdict"], first["kind"]) == ([], "allow", "cylestio")
    assert second["differences"] == [{"kind": "text", "before": HOSTILE, "after": HOSTILE.replace("capital", "harbour")}]
    assert (second["status"], second["verdict"], second["verdicts"][0]["reason"]) == (200, "modify", "text_replaced")
    assert last["summary"]["different"] == 1
    assert last["summary"]["verdicts"] == {"allow": 1, "modify": 1}


def test_broken_lines_are_named_the_rest_is_replayed_and_the_exit_code_is_1(folder: Path) -> None:
    with (folder / "recordings" / "recording_001.jsonl").open("a") as file:
        file.write('{"type": "response", \n')

    done = luthien(folder, "replay", "recordings")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("luthien: recordings/recording_001.jsonl:5: this line is no record: ")
    assert "2 of 2 transactions replayed: 2 the same" in done.stdout
    assert done.stdout.endswith("  1 lines, entries or files could not be used\n")


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "give files or folders of recordings, or --journal"),
        (["recordings", "--journal"], "give files or folders of recordings, or --journal"),
        (["recordings", "--filter", "x"], "--filter goes with --journal"),
        (["--journal", "--filter", "latency>"], "--filter: "),
        (["nowhere"], "there is no recording at nowhere"),
        (["recordings", "--to", "nobody"], "--to nobody: there is no such upstream"),
        (["recordings", "--to", "openai"], "2 requests go to openai, for about $"),
    ],
)
def test_what_cannot_be_is_said_and_exits_2(folder: Path, arguments: list[str], complaint: str) -> None:
    done = luthien(folder, "replay", *arguments)

    assert done.returncode == 2
    assert done.stderr.startswith(f"luthien: {complaint}")


async def test_live_it_sends_after_a_yes(folder: Path) -> None:
    async with FaultUpstream() as upstream:
        done = await asyncio.to_thread(luthien, folder, "replay", "recordings", "--to", upstream.url, "--yes", "--limit", "1")

        assert done.returncode == 0, done.stderr
        assert [one.target for one in upstream.exchanges] == [b"/v1/messages"]
    assert "1 of 1 transactions replayed: 0 the same, 1 different (text 1" in done.stdout


async def test_what_was_sent_live_to_an_address_and_kept_replays_offline(folder: Path) -> None:
    async with FaultUpstream() as upstream:
        to = ["--to", upstream.url, "--yes", "--record"]
        kept = await asyncio.to_thread(luthien, folder, "replay", "recordings", *to)
    assert kept.returncode == 0, kept.stderr

    done = await asyncio.to_thread(luthien, folder, "replay", "--journal", "--check")

    assert done.returncode == 0, done.stdout
    assert "2 of 2 transactions replayed: 2 the same, 0 different" in done.stdout


async def test_what_is_kept_can_be_replayed_from_the_journal(folder: Path) -> None:
    kept = await asyncio.to_thread(luthien, folder, "replay", "recordings", "--record")
    assert kept.returncode == 0, kept.stderr
    assert (folder / "data" / "luthien.db").exists()

    done = await asyncio.to_thread(luthien, folder, "replay", "--journal", "--filter", "model:claude*", "--check")

    assert done.returncode == 0, done.stdout
    assert "1 of 1 transactions replayed: 1 the same, 0 different" in done.stdout
    assert "  verdicts: allow 1 → 1" in done.stdout
