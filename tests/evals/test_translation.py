"""The second opinion tells what agrees from what does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evals.translation import compare, main, rows_of

ASKED = {"model": "m", "messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}]}
GOLDEN = {
    "model": "m", "max_tokens": 4096, "system": "Be brief.",
    "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
}  # fmt: skip


def file_of(folder: Path, **changes: Any) -> Path:
    row = {"input_format": "completions", "target": "anthropic", "name": "basic", "input": json.dumps(ASKED)}
    other = {**row, "target": "bedrock", "expected": "{}"}
    file = folder / "golden.jsonl"
    expected = json.dumps({"request": {**GOLDEN, **changes}})
    file.write_text("\n".join(json.dumps(one) for one in ({**row, "expected": expected}, other)))
    return file


@pytest.mark.parametrize(
    ("changes", "result", "fields"),
    [
        ({"messages": [{"role": "user", "content": "hi"}]}, "same", []),
        ({}, "meaning", ["messages"]),
        ({"messages": [{"role": "user", "content": "bye"}]}, "differs", ["messages"]),
    ],
)
def test_a_row_is_the_same_or_means_the_same_or_differs(
    tmp_path: Path, changes: dict[str, Any], result: str, fields: list[str]
) -> None:
    (row,) = rows_of(file_of(tmp_path, **changes))
    found = compare(row)
    assert (found.result, found.fields, bool(found.problem)) == (result, fields, result == "differs")


@pytest.mark.parametrize(("changes", "code"), [({}, 0), ({"top_k": 3}, 1)])
def test_a_difference_without_a_reason_is_a_failure(
    tmp_path: Path, changes: dict[str, Any], code: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["translation", str(file_of(tmp_path, **changes))])
    assert main() == code
    assert ("NO REASON KNOWN" in capsys.readouterr().out) is bool(code)
