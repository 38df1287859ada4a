"""Takes secrets out of requests before they are sent, and out of answers where that is asked for.

Headers go by name or pattern; in texts, whatever has the form of a well-known key, credentials of this very transaction,
fixed strings, and what patterns of your own match, are blanked by a marker. The headers that carry the upstream's credential
stay unless they are named. Verdicts count what was taken out by kind; a secret stands in none.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Annotated, ClassVar

import msgspec
from pydantic import Field, SecretStr, ValidationInfo, field_validator

from proxy_core.detectors.secret_scanner import SecretScanner
from proxy_core.policies.add_api_key import CREDENTIAL_HEADERS
from proxy_core.policies.base import PolicyParams, Release
from proxy_core.policies.patterns import Pattern
from proxy_core.policies.string_replacement import Replacer
from proxy_core.policies.text_policy import TEXT_OPERATIONS, TextCounts, TextPolicy, TextTransducer, check_length
from proxy_core.routing.reasons import Reason
from proxy_core.transaction import TransactionContext
from proxy_core.verdicts import Stage
from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing import TextPart, UnreadableBody

_JSON_STRING = re.compile(r'"(?:[^"\\]|\\.)*+"')
_MIN_KNOWN_CHARS = 16
"""Shorter credentials are most likely stand-ins such as `not-needed`, which occur in texts."""


class StripSecretsParams(PolicyParams):
    headers: list[Annotated[str, Field(min_length=1)]] = Field(default=["cookie"], max_length=200)
    """Headers that are taken out of requests, by name; also a credential's, if it is named here."""
    header_patterns: list[str] = Field(default_factory=list, max_length=200)
    """Regular expressions of the whole names of more headers, as `x-internal-.*`; they never mean a credential's."""
    formats: bool = True
    """Whether what has the form of a well-known key is blanked in texts."""
    known: bool = True
    """Whether the credentials that this transaction itself carries are blanked in texts."""
    literals: list[Annotated[SecretStr, Field(min_length=4, max_length=10_000)]] = Field(default_factory=list, max_length=1_000)
    """Strings that are blanked in texts; best written as `${VARIABLE}`."""
    patterns: list[Annotated[str, Field(min_length=1, max_length=5_000)]] = Field(default_factory=list, max_length=200)
    """Regular expressions of what else is blanked; for answers they make each text wait until it is whole."""
    marker: str = Field(default="[redacted]", max_length=200)
    """What stands in the place of a secret."""
    responses: bool = False
    """Whether the texts of answers are blanked too."""

    @field_validator("header_patterns", "patterns")
    @classmethod
    def _compile(cls, patterns: list[str], info: ValidationInfo) -> list[str]:
        for pattern in patterns:
            everywhere = Pattern(pattern).found_in("")
            if everywhere and info.field_name == "patterns":
                raise ValueError(f"{pattern!r} matches the empty text, so it would match everywhere")
        return patterns


class StripSecretsPolicy(TextPolicy[StripSecretsParams]):
    """Takes secrets out of requests before they are sent; optionally out of answers."""

    params_model = StripSecretsParams
    stages: ClassVar[frozenset[Stage] | None] = frozenset({Stage.REQUEST, Stage.RESPONSE})
    operations: ClassVar[frozenset[Operation] | None] = None
    reason: ClassVar[Reason] = Reason.SECRET_REMOVED

    def __init__(self, params: StripSecretsParams) -> None:
        super().__init__(params)
        self._headers = {name.strip().lower().encode("latin-1", "replace") for name in params.headers}
        self._header_patterns = [Pattern(pattern, ignore_case=True) for pattern in params.header_patterns]
        self._patterns = [Pattern(pattern) for pattern in params.patterns]
        literals = sorted((one.get_secret_value() for one in params.literals), key=len, reverse=True)
        self._literals = [(literal, params.marker) for literal in literals]

    def acts_on(self, stage: Stage, *, before_send: bool) -> bool:
        return before_send if stage is Stage.REQUEST else stage is Stage.RESPONSE and self.params.responses

    def release_mode(self) -> Release:
        return Release.BLOCK if self._patterns else Release.TAIL

    async def apply(self, context: TransactionContext) -> TransactionContext:
        if context.response_status is not None:
            return await super().apply(context)
        kinds: Counter[str] = Counter()
        for name in {name for name, _ in context.request_headers}:
            if self._strips_header(name):
                kinds["header"] += context.remove_header(name)
        whole = self._strip_request(context, kinds)
        if kinds:
            _say(context, kinds, whole)
        elif not whole:
            context.verdict("allow", Reason.UNSUPPORTED_DIALECT, "texts of this body cannot be read", ran="partial")
        return context

    def transducer(self, context: TransactionContext) -> TextTransducer:
        return _Stripper(self._steps(context), self._patterns, self.params.marker)

    def report(self, context: TransactionContext, counts: TextCounts) -> None:
        kinds: Counter[str] = Counter()
        for one in counts.changed:
            if isinstance(one, _Stripper):
                kinds.update(one.kinds)
        _say(context, kinds, not counts.partial)

    def _strips_header(self, name: bytes) -> bool:
        if name in self._headers:
            return True
        if name in CREDENTIAL_HEADERS:
            return False
        return any(pattern.matches(name.decode("latin-1")) for pattern in self._header_patterns)

    def _strip_request(self, context: TransactionContext, kinds: Counter[str]) -> bool:
        """Blank the request's texts; False where they could not be told apart from the rest of the body."""
        if not context.request_body:
            return True
        makers = self._steps(context)
        found: Counter[str] = Counter()

        def strip(text: str) -> str:
            stripper = _Stripper(makers, self._patterns, self.params.marker)
            out = stripper.feed(text) + stripper.finish()
            found.update(stripper.kinds)
            return out

        def edit(part: TextPart) -> str:
            return _strip_json(part.text, strip) if part.kind == "tool_arguments" else strip(part.text)

        if context.operation in TEXT_OPERATIONS:
            try:
                context.edit_request_texts(edit)
            except UnreadableBody:
                found.clear()
            else:
                kinds.update(found)
                return True
        try:
            body = context.request_body.decode("utf-8")
        except UnicodeDecodeError:
            return False
        stripped = strip(body)
        if stripped != body:
            context.request_body = stripped.encode("utf-8")
            kinds.update(found)
        return False

    def _steps(self, context: TransactionContext) -> list[Callable[[], _Step]]:
        """What makes the steps that each text goes through."""
        marker = self.params.marker
        makers: list[Callable[[], _Step]] = []
        if self._literals:
            makers.append(lambda: _Literals("literal", self._literals))
        if self.params.known:
            known = sorted((one.decode("latin-1") for one in context.services.secrets(context)), key=len, reverse=True)
            pairs = [(one, marker) for one in known if len(one) >= _MIN_KNOWN_CHARS]
            if pairs:
                makers.append(lambda: _Literals("known", pairs))
        if self.params.formats:
            makers.append(lambda: SecretScanner(marker))
        return makers


def _say(context: TransactionContext, kinds: Counter[str], whole: bool) -> None:
    detail = dict(sorted(kinds.items()))
    context.verdict("modify", Reason.SECRET_REMOVED, ran="ran" if whole else "partial", kinds=detail, total=kinds.total())


class _Literals(Replacer):
    """Blanks fixed strings."""

    def __init__(self, kind: str, pairs: list[tuple[str, str]]) -> None:
        super().__init__(pairs)
        self._kind = kind

    @property
    def kinds(self) -> Counter[str]:
        return Counter({self._kind: self.changes}) if self.changes else Counter()


_Step = _Literals | SecretScanner


class _Stripper:
    """One text that comes in pieces, through all steps; patterns of your own see it whole, before the others."""

    def __init__(self, makers: list[Callable[[], _Step]], patterns: list[Pattern], marker: str) -> None:
        self._steps = [make() for make in makers]
        self._patterns = patterns
        self._marker = marker
        self._pieces: list[str] = []
        self._length = 0
        self._matched = 0

    @property
    def kinds(self) -> Counter[str]:
        kinds: Counter[str] = Counter()
        if self._matched:
            kinds["pattern"] = self._matched
        for step in self._steps:
            kinds.update(step.kinds)
        return kinds

    @property
    def changes(self) -> int:
        return self._matched + sum(step.changes for step in self._steps)

    def feed(self, text: str) -> str:
        if self._patterns:
            self._length += len(text)
            check_length(self._length)
            self._pieces.append(text)
            return ""
        return self._through(text)

    def finish(self) -> str:
        text = ""
        if self._patterns:
            text = "".join(self._pieces)
            self._pieces = []
            for pattern in self._patterns:
                text, count = pattern.replaced(text, lambda _: self._marker)
                self._matched += count
        for step in self._steps:
            text = (step.feed(text) if text else "") + step.finish()
        return text

    def _through(self, text: str) -> str:
        for step in self._steps:
            if not text:
                break
            text = step.feed(text)
        return text


def _strip_json(text: str, strip: Callable[[str], str]) -> str:
    """`text`, which should be JSON, with its strings stripped; what is no JSON is stripped as it is."""
    try:
        msgspec.json.decode(text, type=msgspec.Raw)
    except (msgspec.MsgspecError, UnicodeError):
        return strip(text)

    def of_string(found: re.Match[str]) -> str:
        try:
            before = msgspec.json.decode(found.group(), type=str)
        except (msgspec.MsgspecError, UnicodeError):
            return found.group()
        after = strip(before)
        return found.group() if after == before else msgspec.json.encode(after).decode("utf-8")

    return _JSON_STRING.sub(of_string, text)
