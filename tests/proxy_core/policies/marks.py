"""Policies for tests of what holds other policies: they write down that they ran."""

from __future__ import annotations

from pathlib import Path

from proxy_core.settings import Settings

MARK = '''
from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from proxy_core.policies.base import ControlPolicy, PolicyDenied, PolicyParams
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.conversation import StreamEvent, TextBlock, TextDelta


class MarkParams(PolicyParams):
    word: str
    """What it writes down, and puts after each text."""
    fails: str = ""
    """`deny` or `fault`, and where it does: `deny request`."""


class MarkPolicy(ControlPolicy[MarkParams]):
    """Writes down that it ran."""

    params_model = MarkParams
    stages = frozenset({Stage.REQUEST, Stage.RESPONSE})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        self._note(context)
        if context.response_status is None:
            context.edit_request_texts(lambda part: part.text + self.params.word)
        else:
            context.edit_answer(
                lambda block: [TextBlock(block.text + self.params.word)] if isinstance(block, TextBlock) else None
            )
        return context

    async def on_stream(self, context: TransactionContext, events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
        self._note(context)
        async for event in events:
            if isinstance(event, TextDelta) and event.text:
                event = msgspec.structs.replace(event, text=event.text + self.params.word, raw=b"")
            yield event

    def _note(self, context: TransactionContext) -> None:
        context.data.setdefault("order", []).append(f"{context.stage.value} {self.params.word}")
        if self.params.fails == f"deny {context.stage.value}":
            raise PolicyDenied(Reason.POLICY_DECISION, "no")
        if self.params.fails == f"fault {context.stage.value}":
            raise ValueError("broken")
'''

WHOLE = '''
from __future__ import annotations

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage


class WholePolicy(ControlPolicy[PolicyParams]):
    """Looks at whole answers only."""

    stages = frozenset({Stage.RESPONSE})

    async def apply(self, context: TransactionContext) -> TransactionContext:
        context.data.setdefault("order", []).append("response whole")
        return context
'''

PLACED = '''
from __future__ import annotations

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext


class PlacedPolicy(ControlPolicy[PolicyParams]):
    """Acts where it stands."""

    async def apply(self, context: TransactionContext) -> TransactionContext:
        context.data.setdefault("order", []).append(f"{context.stage.value} placed")
        return context
'''

SENDER = '''
from __future__ import annotations

from proxy_core.policies.base import ControlPolicy, PolicyParams
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage


class SenderPolicy(ControlPolicy[PolicyParams]):
    """Gets the answer itself."""

    stages = frozenset({Stage.REQUEST})
    sends = True

    async def apply(self, context: TransactionContext) -> TransactionContext:
        context.data.setdefault("order", []).append("send")
        whole = await context.services.send(context)
        context.set_response(whole.status, whole.headers, whole.body)
        return context
'''


def settings_with_marks(folder: Path) -> Settings:
    """Settings that know the policies `mark`, `whole`, `placed` and `sender`."""
    for name, text in {"mark": MARK, "whole": WHOLE, "placed": PLACED, "sender": SENDER}.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    return Settings(policy_paths=[str(folder)])


def mark(word: str, fails: str = "") -> dict[str, object]:
    return {"use": "mark", "name": word, "params": {"word": word, "fails": fails}}
