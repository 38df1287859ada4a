"""The files that `luthien policies new NAME` writes: a policy that works, and its test that passes."""

from __future__ import annotations

import keyword
import re

from proxy_core.errors import ConfigurationError
from proxy_core.policies.registry import ALIASES, BUILT_IN

POLICY = '''"""{title}: refuses requests that hold a forbidden word."""

from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyParams
from proxy_core.policies.text_policy import TEXT_OPERATIONS
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.editing import TextPart


class {cls}Params(PolicyParams):
    words: list[str] = ["forbidden"]
    """Words that no request may hold, in small letters."""


class {cls}(ControlPolicy[{cls}Params]):
    """Refuses requests that hold a forbidden word."""

    params_model = {cls}Params
    stages = frozenset({{Stage.REQUEST}})
    operations = TEXT_OPERATIONS

    async def apply(self, context: TransactionContext) -> TransactionContext:
        def look(part: TextPart) -> str | None:
            for word in self.params.words:
                if word in part.text.lower():
                    raise PolicyDenied(Reason.POLICY_DECISION, f"the word '{{word}}' is not allowed here")
            return None  # leave the text as it is; return another text to change it

        context.edit_request_texts(look)
        return context
'''

TEST = '''"""{title}: traffic in, verdicts and bytes out. Run it with `pytest {test}`."""

import asyncio

from {module} import {cls}, {cls}Params

from proxy_core.policies.testing import Outcome, context_for, run_request


def asked(text: str, **params: object) -> Outcome:
    policy = {cls}({cls}Params.model_validate(params))
    return asyncio.run(run_request(policy, context_for(text=text)))


def test_a_forbidden_word_is_refused() -> None:
    outcome = asked("This is FORBIDDEN knowledge.")
    assert outcome.denied is not None
    assert outcome.verdict.action == "deny"


def test_other_requests_pass_unchanged() -> None:
    outcome = asked("This is not.")
    assert outcome.denied is None
    assert outcome.body == context_for(text="This is not.").request_body


def test_the_words_can_be_chosen() -> None:
    assert asked("say please", words=["please"]).denied is not None
'''


def policy_files(name: str) -> dict[str, str]:
    """Texts by file name, the policy's first. Raises ConfigurationError where `name` cannot name a policy."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name)
    module = "_".join(words).lower().removesuffix("_policy")
    if re.fullmatch(r"[A-Za-z][A-Za-z0-9_-]{0,59}", name) is None or not module or keyword.iskeyword(module):
        raise ConfigurationError(f"{name!r} cannot name a policy; use a name like block_swearing")
    if module in BUILT_IN or module in ALIASES or module.startswith("test_") or module in ("test", "conftest"):
        raise ConfigurationError(f"the name {module!r} is taken; choose another")
    cls = "".join(word.capitalize() for word in module.split("_"))
    title = " ".join(module.split("_")).capitalize()
    test = f"test_{module}.py"
    return {
        f"{module}.py": POLICY.format(title=title, cls=cls),
        test: TEST.format(title=title, cls=cls, module=module, test=test),
    }
