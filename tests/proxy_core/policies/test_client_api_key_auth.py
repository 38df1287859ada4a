"""A client with a configured key is let in; everybody else gets 401 and learns nothing."""

from __future__ import annotations

import hashlib

import pytest
from pydantic import ValidationError

from proxy_core.policies.client_api_key_auth import ClientApiKeyAuthParams, ClientApiKeyAuthPolicy
from proxy_core.policies.registry import build_policy
from proxy_core.policies.testing import Outcome, context_for, run_request
from proxy_core.settings import Settings

KEYS = {
    "ann": {"key": "key-of-ann"},
    "bob": {"sha256": hashlib.sha256(b"key-of-bob").hexdigest()},
    "eve": {"key": "key-of-eve", "active": False},
}


async def asked(*headers: tuple[bytes, bytes], **params: object) -> Outcome:
    policy = ClientApiKeyAuthPolicy(ClientApiKeyAuthParams.model_validate({"keys": KEYS} | params))
    return await run_request(policy, context_for(headers=headers))


@pytest.mark.parametrize(
    ("header", "name"),
    [
        ((b"authorization", b"Bearer key-of-ann"), "ann"),
        ((b"authorization", b"bearer  key-of-bob "), "bob"),
        ((b"x-api-key", b"key-of-ann"), "ann"),
        ((b"api-key", b"key-of-bob"), "bob"),
    ],
)
async def test_an_active_key_is_let_in_and_named(header: tuple[bytes, bytes], name: str) -> None:
    outcome = await asked(header, (b"accept", b"*/*"))
    assert outcome.denied is None
    assert outcome.context.key == name
    assert (outcome.verdict.action, outcome.verdict.detail) == ("allow", {"key": name})
    assert outcome.context.request_headers == [(b"accept", b"*/*")]  # the gateway's key is nothing for the upstream


async def test_the_key_goes_on_where_that_is_wanted() -> None:
    header = (b"authorization", b"Bearer key-of-ann")
    assert (await asked(header, forward_key=True)).context.request_headers == [header]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ((), "client_key_missing"),
        (((b"authorization", b""),), "client_key_missing"),
        (((b"authorization", b"Bearer "),), "client_key_missing"),
        (((b"authorization", b"Basic a2V5LW9mLWFubg=="),), "client_key_missing"),
        (((b"authorization", b"key-of-ann"),), "client_key_missing"),
        (((b"authorization", b"Bearer key-of-anna"),), "client_key_unknown"),
        (((b"authorization", b"Bearer KEY-OF-ANN"),), "client_key_unknown"),
        (((b"x-api-key", b"\xff\x00" * 10_000),), "client_key_unknown"),
        (((b"authorization", b"Bearer " + KEYS["bob"]["sha256"].encode()),), "client_key_unknown"),
        (((b"authorization", b"Bearer key-of-eve"),), "client_key_inactive"),
    ],
)
async def test_everybody_else_gets_401(headers: tuple[tuple[bytes, bytes], ...], reason: str) -> None:
    outcome = await asked(*headers)
    assert outcome.denied is not None
    assert outcome.denied.face.status == 401
    assert (outcome.verdict.action, outcome.verdict.reason) == ("deny", reason)
    assert "key-of" not in str(outcome.denied)


async def test_one_good_key_of_two_is_enough() -> None:
    outcome = await asked((b"authorization", b"Bearer of-the-upstream"), (b"x-api-key", b"key-of-ann"))
    assert (outcome.denied, outcome.context.key) == (None, "ann")


async def test_without_any_key_nobody_is_let_in() -> None:
    outcome = await asked((b"authorization", b"Bearer "), (b"x-api-key", b"x"), keys={})
    assert outcome.verdict.reason == "client_key_unknown"


async def test_the_keys_of_the_settings_are_taken_where_none_are_named() -> None:
    settings = Settings.model_validate({"keys": {"carl": {"key": "key-of-carl"}}})
    policy = build_policy("client_api_key_auth", {}, settings)
    outcome = await run_request(policy, context_for(headers=[(b"x-api-key", b"key-of-carl")]))
    assert outcome.context.key == "carl"
    own = build_policy("client_api_key_auth", {"keys": KEYS}, settings)
    refused = await run_request(own, context_for(headers=[(b"x-api-key", b"key-of-carl")]))
    assert refused.verdict.reason == "client_key_unknown"


def test_keys_stand_in_no_description() -> None:
    params = ClientApiKeyAuthParams.model_validate({"keys": KEYS})
    assert "key-of-ann" not in repr(params) + params.model_dump_json()


@pytest.mark.parametrize("key", [{}, {"key": ""}, {"sha256": "abc"}, {"key": "x", "unknown": 1}])
def test_a_key_that_cannot_be_compared_is_refused(key: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        ClientApiKeyAuthParams.model_validate({"keys": {"ann": key}})
