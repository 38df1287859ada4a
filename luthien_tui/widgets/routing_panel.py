"""Routing as it is set: its thresholds as controls with what a prepared change would move, upstreams, and who gets how much."""

from __future__ import annotations

from luthien_tui import figures, glyphs
from luthien_tui.policy_changes import Pending, can_move
from luthien_tui.text import cell
from luthien_tui.widgets.line_panel import Line, LinePanel
from luthien_tui.widgets.paint import Piece, fit
from luthien_tui.widgets.policy_panel import change_line, changed_params, param_lines
from proxy_core.control.param_info import ParamInfo
from proxy_core.control.routing_infos import RoutingInfo, UpstreamInfo, WhatIf

BAR = 12
NAME = 28
"""Cells for the longest name of a rule."""


class RoutingPanel(LinePanel):
    """The cursor stands on a rule or on an upstream."""

    def __init__(self) -> None:
        super().__init__(id="routing-panel")
        self.info: RoutingInfo | None = None
        self.pending = Pending()
        self.note = ""
        """What the prepared change would do."""

    @property
    def param(self) -> ParamInfo | None:
        """The rule under the cursor."""
        rules = self.info.rules if self.info is not None else ()
        return rules[self.cursor] if 0 <= self.cursor < len(rules) else None

    @property
    def upstream(self) -> UpstreamInfo | None:
        """The upstream under the cursor."""
        if self.info is None:
            return None
        place = self.cursor - len(self.info.rules)
        return self.info.upstreams[place] if 0 <= place < len(self.info.upstreams) else None

    @property
    def count(self) -> int:
        return len(self.info.rules) + len(self.info.upstreams) if self.info is not None else 0

    def show(self, info: RoutingInfo, pending: Pending, note: str) -> None:
        """Draw this; the cursor stays on its rule."""
        self.info, self.pending, self.note = info, pending, note
        self.take_lines()

    def lines_for(self, width: int) -> list[Line]:
        return [] if self.info is None else routing_lines(self.info, self.pending, self.note, width)


def routing_lines(info: RoutingInfo, pending: Pending, note: str, width: int) -> list[Line]:
    """Everything about routing, line by line."""
    lines: list[Line] = []
    if info.override:
        kept: list[Piece] = [(" EVERYTHING STAYS LOCAL ", "alarm"), ("  L", "key"), (" lets the rules decide again", "quiet")]
        lines.append((kept, None))
    if pending:
        lines.append(change_line([_bare(part) for part in changed_params(pending, info.rules)]))
        lines.append(([(fit(note, width).rstrip(), "notice")], None))
    source = cell(info.source.removeprefix("operator "))
    keywords = f"{info.keywords:,} keyword{'' if info.keywords == 1 else 's'} keep a request local"
    lines.append(([(fit(f"{keywords} · set by {source}", width).rstrip(), "quiet")], None))
    known = {f"params.{one.name}" for one in info.rules}
    lines += [([(f"✗ {cell(wrong)}", "error")], None) for field, wrong in pending.wrong.items() if field not in known]
    for place, rule in enumerate(info.rules):
        lines += [(pieces, place) for pieces in _rule(rule, pending, width)]
    lines += [([("", "")], None), *_upstreams(info), ([("", "")], None), *_reasons(info)]
    return lines


def _rule(rule: ParamInfo, pending: Pending, width: int) -> list[list[Piece]]:
    """A rule in as few lines as it needs; one that is not set says so in place of a slider."""
    shown = _renamed(rule, _bare(rule.name))
    local = Pending(params={shown.name: pending.params[rule.name]} if rule.name in pending.params else {})
    wrong = pending.wrong.get(f"params.{rule.name}")
    if wrong is not None:
        local.wrong[f"params.{shown.name}"] = wrong
    if can_move(shown) and local.value_of(shown) is None:
        return [[(fit(shown.name, NAME), "name"), ("not set", "quiet"), ("  → sets it, e types it", "quiet")]]
    return param_lines(shown, local, NAME, width)


def _renamed(rule: ParamInfo, name: str) -> ParamInfo:
    return ParamInfo(
        name=name, kind=rule.kind, value=rule.value, default=rule.default, minimum=rule.minimum, maximum=rule.maximum,
        step=rule.step, choices=rule.choices, tunable=rule.tunable,
    )  # fmt: skip


def _bare(name: str) -> str:
    """A rule's name without its section."""
    return name.removeprefix("cost.").removeprefix("sensitivity.")


def _bar(part: float) -> list[Piece]:
    full, rest = figures.gauge(part, BAR)
    return [(full, "bar"), (rest, "bar-rest")]


def _upstreams(info: RoutingInfo) -> list[Line]:
    total = sum(one.requests_1h for one in info.upstreams)
    lines: list[Line] = [([("upstreams, last hour", "strong")], None)]
    for place, one in enumerate(info.upstreams, len(info.rules)):
        part = one.requests_1h / total if total else 0.0
        face = glyphs.upstream(one)
        name: list[Piece] = [(fit(cell(one.name), 12), "name"), (fit("local" if one.local else "cloud", 6), "quiet")]
        share: list[Piece] = [(f" {figures.count(one.requests_1h):>6} {figures.share(part):>4}  ", "")]
        lines.append(([*name, *_bar(part), *share, (f"{face.sign} {face.word}", face.tone)], place))
        facts: list[Piece] = [
            (f"  {one.in_flight:,} in flight · {figures.rate(one.rps)} rps", "" if one.in_flight else "quiet"),
            (f" · p50 {figures.duration(one.p50_ms)} p99 {figures.duration(one.p99_ms)}", "quiet"),
            (f" · err {figures.share(one.error_rate)}", "error" if one.error_rate else "quiet"),
            (f" · {figures.usd(one.cost_usd_1h)}", "quiet"),
        ]
        lines.append((facts, place))
        if trouble := _trouble(one):
            lines.append(([(f"  {trouble}", "warning")], place))
    return lines


def _trouble(one: UpstreamInfo) -> str:
    """What is wrong with an upstream, and when it is tried again; empty where nothing is."""
    said: list[str] = []
    if one.breaker != "closed" and one.last_failure:
        said.append(cell(one.last_failure))
    if one.ready_in_s > 0:
        said.append(f"again in {figures.duration(one.ready_in_s * 1e3)}")
    if one.probe and (said or one.probe != "ok"):
        said.append(f"probe: {cell(one.probe)}")
    return " · ".join(said)


def _reasons(info: RoutingInfo) -> list[Line]:
    most = max((count for _, count in info.reasons), default=0)
    lines: list[Line] = [([("reasons, last hour", "strong")], None)]
    for code, count in info.reasons:
        lines.append(([(fit(cell(code), NAME), "name"), *_bar(count / most), (f" {figures.count(count):>6}", "")], None))
    if not info.reasons:
        lines.append(([("none yet", "quiet")], None))
    return lines


def moves_in_words(found: WhatIf) -> str:
    """What a prepared change would have moved, in one line."""
    if not found.total:
        return "no recorded traffic to try it on"
    of = f"of the last {found.total:,}"
    if not found.moved:
        return f"would move none {of}"
    first = found.moves[0]
    others = f" +{len(found.moves) - 1}" if len(found.moves) > 1 else ""
    unknown = f" ({found.unknown_cost:,} unpriced)" if found.unknown_cost else ""
    ways = f"{cell(first.from_upstream) or 'refused'} → {cell(first.to_upstream) or 'refused'}{others}"
    cost = f"{figures.usd(found.cost_before_usd)} → {figures.usd(found.cost_after_usd)}{unknown}"
    return f"would move {found.moved:,} {of}: {ways}, {cost}"
