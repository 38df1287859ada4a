"""The configured rules over the configured upstreams: where one request goes, and how its model is called there.

Reads a request only as far as the rules need it; where no rule is configured nothing is read, and the path alone decides.
A request that holds a keyword goes to a local upstream or nowhere: RouteRefused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from msgspec.structs import replace

from proxy_core.errors import ConfigurationError, RouteRefused
from proxy_core.routing.decision import LOCAL, PUBLIC, Candidate, Decision, Question, RoutingRules, decide, matches
from proxy_core.routing.keywords import usable_keywords
from proxy_core.routing.reasons import Reason
from proxy_core.routing.upstreams import Choice, Upstream, Upstreams, speaks
from proxy_core.sessions.identity import tags_of
from proxy_core.settings import RoutingSettings, Settings
from proxy_core.wire.dialects import READ_OPERATIONS, Dialect, Endpoint, Operation
from proxy_core.wire.editing import UnreadableBody, set_model
from proxy_core.wire.headers import value_of
from proxy_core.wire.spoken import Spoken, spoken
from proxy_core.wire.translate import Translated, can_translate, translate_request

RawHeaders = list[tuple[bytes, bytes]]

GENERATING = READ_OPERATIONS - {Operation.EMBEDDINGS, Operation.OLLAMA_EMBED, Operation.COUNT_TOKENS}
"""Operations for which another model may stand in; embeddings of two models are not alike."""
CHAT_OF = {
    Dialect.OPENAI: Operation.CHAT,
    Dialect.ANTHROPIC: Operation.MESSAGES,
    Dialect.OLLAMA: Operation.OLLAMA_CHAT,
}
"""The operation by which each dialect takes what was translated."""
_ENDPOINTS_KEPT = 512


class Router:
    """Chooses upstreams by the rules."""

    def __init__(self, settings: Settings, upstreams: Upstreams) -> None:
        """Raises ConfigurationError where a rule names an upstream that is not configured."""
        for place, name in unknown_upstreams(settings):
            raise ConfigurationError(f"{'.'.join(place)}: no upstream is called {name!r}")
        self._upstreams = upstreams
        self.take(rules_of(settings.routing))
        self.use(settings.routing)
        self._candidates: dict[Endpoint, tuple[Candidate, ...]] = {}
        self.maps_models = any(one.models or one.default_model for one in upstreams.by_name.values())

    rules: RoutingRules
    """The version in force: read it once for each decision."""
    idle: bool
    """Whether no rule is configured, so that the path alone decides."""

    def take(self, rules: RoutingRules) -> None:
        """Put other rules in force for every later decision."""
        self.rules, self.idle = rules, rules.idle

    def use(self, settings: RoutingSettings) -> None:
        """Take what of the settings is no rule, for every later request."""
        self._drops = settings.on_unsupported == "drop"

    def choose(
        self,
        endpoint: Endpoint,
        *,
        headers: RawHeaders,
        body: bytes,
        model: str,
        tags: Mapping[str, str] | None = None,
        asked: tuple[str, Reason] | None = None,
    ) -> Choice:
        """Where a request goes. Raises RouteRefused, UnknownUpstream.

        `tags` are read from the headers where they are not given; `asked` is the upstream that a policy chose.
        """
        if self.idle:
            return self._upstreams.choose(endpoint)
        rules = self.rules
        question = self.question(endpoint, headers=headers, body=body, model=model, tags=tags, asked=asked)
        decision = self.decide(question, endpoint, body, rules)
        chosen = self._upstreams.by_name.get(decision.upstream)
        reason = ",".join(decision.reasons)
        if chosen is not None:
            return Choice(chosen, reason)
        if decision.rule == "operator":
            raise RouteRefused("an operator keeps everything local, and no local upstream takes this request", reason)
        if decision.rule == "sensitivity":
            raise RouteRefused(
                "this request holds what must stay local, and no local upstream that takes it is configured", reason
            )
        return self._upstreams.choose(endpoint)  # raises, and says what to configure

    def decide(self, question: Question, endpoint: Endpoint, body: bytes, rules: RoutingRules) -> Decision:
        """The rules' decision. An upstream of another dialect takes only what can be said in that dialect."""
        while True:
            decision = decide(question, rules)
            chosen = self._upstreams.by_name.get(decision.upstream)
            if chosen is None or self.fits(chosen, endpoint, body, question.model):
                return decision
            rest = tuple(replace(one, takes=False) if one.name == chosen.name else one for one in question.upstreams)
            question = replace(question, upstreams=rest)

    def fits(self, upstream: Upstream, endpoint: Endpoint, body: bytes, model: str) -> bool:
        """Whether the upstream takes this request: as it is, or translated with nothing lost that must be kept."""
        if speaks(upstream.api, endpoint):
            return True
        return self.translation(upstream, endpoint, self.with_model(upstream, endpoint, body, model)) is not None

    def translation(self, upstream: Upstream, endpoint: Endpoint, body: bytes) -> Translated | None:
        """The request in the upstream's own dialect; None where something of it cannot be carried and may not be left out."""
        try:
            translated = translate_request(endpoint.operation, CHAT_OF[upstream.api], body)
        except UnreadableBody:
            return None
        return translated if self._drops or not translated.lost else None

    def question(
        self,
        endpoint: Endpoint,
        *,
        headers: RawHeaders,
        body: bytes,
        model: str,
        tags: Mapping[str, str] | None = None,
        asked: tuple[str, Reason] | None = None,
        read_text: bool | None = None,
    ) -> Question:
        """What the rules are asked about a request; `read_text` reads what is said though the rules in force need not know."""
        said = Spoken(())
        if self.rules.read_text if read_text is None else read_text:
            encoding = value_of(headers, b"content-encoding")
            for_length = not (self.rules.keywords or read_text)
            said = spoken(endpoint.operation, body, encoding, last_user_only=for_length)
        name, by = asked or (endpoint.upstream or "", Reason.EXPLICIT_UPSTREAM)
        usual = self._upstreams.usual(endpoint.api)
        return Question(
            upstreams=self._candidates_for(endpoint),
            usual=usual.name if usual is not None else "",
            asked=name,
            asked_by=by,
            model=model,
            tags=tags if tags is not None else tags_of(headers) if self.rules.tags else {},
            texts=said.texts,
            last_user=said.last_user,
            generates=endpoint.operation in GENERATING,
        )

    def _candidates_for(self, endpoint: Endpoint) -> tuple[Candidate, ...]:
        known = self._candidates.get(endpoint)
        if known is None:
            if len(self._candidates) >= _ENDPOINTS_KEPT:
                self._candidates.clear()
            everyone = self._upstreams.by_name.values()
            known = tuple(Candidate(one.name, one.local, _takes(one, endpoint)) for one in everyone)
            self._candidates[endpoint] = known
        return known

    def check(self, upstream: Upstream, operation: Operation, body: bytes) -> None:
        """For what a policy sends on its own: raises RouteRefused where it would take a keyword away from here."""
        rules = self.rules
        if upstream.local or not (rules.keywords or rules.force_local):
            return
        said = spoken(operation, body) if _is_text(body) else Spoken(None)
        there = Candidate(upstream.name, local=False, takes=True)
        question = Question(upstreams=(there,), asked=upstream.name, texts=said.texts, last_user=said.last_user)
        decision = decide(question, rules)
        if decision.upstream != upstream.name:
            raise RouteRefused(f"a policy would send what must stay local to '{upstream.name}'", ",".join(decision.reasons))

    def with_model(self, upstream: Upstream, endpoint: Endpoint, body: bytes, model: str) -> bytes:
        """The body with the model as the upstream calls it; the same object where nothing changes."""
        wanted = self.model_there(upstream, endpoint, model)
        if not wanted or wanted == model or endpoint.operation not in READ_OPERATIONS:
            return body
        try:
            return set_model(endpoint.operation, body, wanted)
        except UnreadableBody:
            return body

    def model_there(self, upstream: Upstream, endpoint: Endpoint, model: str) -> str:
        """The model as the upstream calls it; empty where it is called as it came."""
        if model in upstream.models:
            return upstream.models[model]
        for pattern, name in upstream.models.items():
            if model and matches(pattern, model):
                return name
        if upstream.default_model is None or endpoint.operation not in GENERATING or model in upstream.models.values():
            return ""
        return upstream.default_model if self.moved(endpoint, upstream) else ""

    def moved(self, endpoint: Endpoint, upstream: Upstream) -> bool:
        """Whether the request goes elsewhere than its path asks for."""
        if endpoint.upstream is not None:
            return endpoint.upstream != upstream.name
        usual = self._upstreams.usual(endpoint.api)
        return usual is None or usual.name != upstream.name


def _is_text(body: bytes) -> bool:
    """Whether a body can be read as it stands: it may be compressed, or hold files."""
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _takes(upstream: Upstream, endpoint: Endpoint) -> bool:
    return speaks(upstream.api, endpoint) or can_translate(endpoint.operation, CHAT_OF[upstream.api])


def rules_of(settings: RoutingSettings) -> RoutingRules:
    """The rules that the settings describe."""
    return RoutingRules(
        keywords=usable_keywords(settings.sensitivity.keywords),
        whole_words=settings.sensitivity.match == "word",
        last_user_only=settings.sensitivity.scope == "last_user",
        models=tuple(settings.models.items()),
        tags=tuple(settings.tags.items()),
        max_prompt_length_for_local=settings.cost.max_prompt_length_for_local,
        max_usd_for_local=settings.cost.max_usd_for_local,
        input_usd_per_1m_tokens=settings.cost.input_usd_per_1m_tokens,
        chars_per_token=settings.cost.chars_per_token,
        default_provider=settings.default_provider or "",
    )


def unknown_upstreams(settings: Settings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Names of upstreams in the rules that no upstream has, each with its place in the settings."""
    routing = settings.routing
    if routing.default_provider and routing.default_provider not in (*settings.upstreams, LOCAL, PUBLIC):
        yield ("routing", "default_provider"), routing.default_provider
    for section, named in (("models", routing.models), ("tags", routing.tags)):
        for name, upstream in named.items():
            if upstream not in settings.upstreams:
                yield ("routing", section, name), upstream
    for upstream in settings.limits.upstreams:
        if upstream not in (*settings.upstreams, "*"):
            yield ("limits", "upstreams", upstream), upstream
