"""A key is put in where it belongs, and stands nowhere else."""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError

from proxy_core.policies.add_api_key import AddApiKeyParams, AddApiKeyPolicy
from proxy_core.policies.testing import Outcome, context_for, run_request
from proxy_core.wire.dialects import Operation

KEY = "sk-upstream-0123456789"


async def asked(
    operation: Operation = Operation.CHAT,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    data: dict[str, object] | None = None,
    **params: object,
) -> Outcome:
    context = context_for(operation, headers=headers)
    context.data.update(data or {})
    return await run_request(AddApiKeyPolicy(AddApiKeyParams.model_validate(params)), context)


class TestWhereItComesFrom:
    async def test_the_configuration(self) -> None:
        outcome = await asked(source="config", api_key=KEY)
        assert outcome.context.header(b"authorization") == f"Bearer {KEY}"
        assert (outcome.verdict.action, outcome.verdict.reason) == ("modify", "api_key_added")

    async def test_the_environment_at_each_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for value in ("first-key", "second-key"):
            monkeypatch.setenv("SOME_KEY", value)
            outcome = await asked(source="environment", env="SOME_KEY")
            assert outcome.context.header(b"authorization") == f"Bearer {value}"

    @pytest.mark.parametrize("value", [KEY, KEY.encode(), f"  {KEY}\n"])
    async def test_what_an_earlier_policy_found(self, value: object) -> None:
        outcome = await asked(source="context", context_key="found", data={"found": value})
        assert outcome.context.header(b"authorization") == f"Bearer {KEY}"


class TestWhereItGoes:
    @pytest.mark.parametrize(
        ("operation", "key", "header", "value"),
        [
            (Operation.CHAT, KEY, b"authorization", f"Bearer {KEY}"),
            (Operation.MESSAGES, KEY, b"x-api-key", KEY),
            (Operation.MESSAGES, "sk-ant-oat01-abc", b"authorization", "Bearer sk-ant-oat01-abc"),
            (Operation.OLLAMA_CHAT, KEY, b"authorization", f"Bearer {KEY}"),
        ],
    )
    async def test_the_upstreams_api_decides(self, operation: Operation, key: str, header: bytes, value: str) -> None:
        outcome = await asked(operation, source="config", api_key=key)
        assert outcome.context.request_headers == [(header, value.encode())]

    async def test_or_the_configuration_does(self) -> None:
        outcome = await asked(source="config", api_key=KEY, header="x-api-key")
        assert outcome.context.request_headers == [(b"x-api-key", KEY.encode())]

    async def test_the_httpx_request_has_it_too(self) -> None:
        outcome = await asked(source="config", api_key=KEY)
        assert outcome.context.request is not None
        assert outcome.context.request.headers["authorization"] == f"Bearer {KEY}"


class TestTheClientsOwnKey:
    HEADERS = ((b"x-api-key", b"client-key"), (b"authorization", b"Bearer client"), (b"accept", b"*/*"))

    async def test_stays_where_it_is_kept(self) -> None:
        outcome = await asked(headers=self.HEADERS, source="config", api_key=KEY)
        assert outcome.context.request_headers == list(self.HEADERS)
        assert (outcome.verdict.action, outcome.verdict.reason) == ("allow", "api_key_kept")

    async def test_is_replaced_whole_where_it_is_not(self) -> None:
        outcome = await asked(headers=self.HEADERS, source="config", api_key=KEY, keep_client_key=False)
        assert outcome.context.request_headers == [(b"accept", b"*/*"), (b"authorization", f"Bearer {KEY}".encode())]

    async def test_an_empty_one_is_none(self) -> None:
        outcome = await asked(headers=((b"authorization", b" "),), source="config", api_key=KEY)
        assert outcome.context.header(b"authorization") == f"Bearer {KEY}"


class TestNoKey:
    @pytest.mark.parametrize("value", [None, "", "  ", 5, "two\r\nx-evil: lines", "schlüssel", "\x00"])
    async def test_is_a_fault_and_nothing_is_sent(self, value: object) -> None:
        outcome = await asked(source="context", data={"api_key": value})
        assert outcome.denied is not None
        assert (outcome.verdict.action, outcome.verdict.ran, outcome.verdict.reason) == ("deny", "error", "api_key_missing")
        assert outcome.context.request_headers == []

    async def test_in_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        outcome = await asked(source="environment", env="NO_SUCH_KEY")
        assert outcome.verdict.reason == "api_key_missing"
        assert "NO_SUCH_KEY" in outcome.verdict.message

    @pytest.mark.parametrize(
        "params", [{"source": "config"}, {"source": "config", "api_key": " "}, {"source": "sky"}, {"key": "x"}]
    )
    def test_in_the_configuration(self, params: dict[str, str]) -> None:
        with pytest.raises(ValidationError):
            AddApiKeyParams.model_validate(params)


async def test_the_key_stands_in_no_verdict_and_no_description() -> None:
    outcome = await asked(source="config", api_key=KEY)
    assert KEY not in outcome.verdict.message + json.dumps(outcome.verdict.detail)
    params = AddApiKeyParams.model_validate({"source": "config", "api_key": KEY})
    assert KEY not in repr(params) + params.model_dump_json()
