"""The selected policy: what it does, each of its parameters as a control, and the change that is prepared."""

from __future__ import annotations

from collections.abc import Sequence

from luthien_tui import figures
from luthien_tui.documents import wrap
from luthien_tui.policy_changes import Pending, as_text, can_move, is_threshold, what_if
from luthien_tui.text import cell
from luthien_tui.textual_compat import jump
from luthien_tui.widgets.line_panel import Line, LinePanel
from luthien_tui.widgets.paint import Piece, fit
from proxy_core.control.plane import ParamInfo, PolicyInfo

SLIDER_WIDTH = 24


class PolicyPanel(LinePanel):
    """Shows one policy; the cursor stands on a parameter."""

    def __init__(self) -> None:
        super().__init__(id="policy-panel")
        self.policy: PolicyInfo | None = None
        self.pending = Pending()

    @property
    def count(self) -> int:
        return len(self.policy.params) if self.policy is not None else 0

    @property
    def param(self) -> ParamInfo | None:
        """The parameter under the cursor."""
        params = self.policy.params if self.policy is not None else ()
        return params[self.cursor] if 0 <= self.cursor < len(params) else None

    def show(self, policy: PolicyInfo | None, pending: Pending) -> None:
        """Show a policy; of another one the cursor stands on the first parameter that arrows move."""
        is_other = policy is None or self.policy is None or policy.name != self.policy.name
        self.policy, self.pending = policy, pending
        if is_other and policy is not None:
            self.cursor = next((place for place, param in enumerate(policy.params) if can_move(param)), 0)
            jump(self, 0)
        self.take_lines()
        if is_other:
            self.reveal()

    def lines_for(self, width: int) -> list[Line]:
        return [] if self.policy is None else panel_lines(self.policy, self.pending, width)


def panel_lines(policy: PolicyInfo, pending: Pending, width: int) -> list[Line]:
    """Everything about a policy, line by line."""
    lines: list[Line] = [_change(pending, policy)] if pending else []
    lines += [([(text, "strong")], None) for text in wrap(cell(policy.summary), width)]
    facts = [f"use {cell(policy.use)}", f"set by {cell(policy.source.removeprefix('operator '))}"]
    if not policy.sends:
        facts += [f"acts on {' and '.join(map(cell, policy.stages)) or 'nothing'}", f"buffers {cell(policy.release)}"]
        facts += [f"on error {cell(policy.on_error)}", f"{policy.errors_1h:,} errors 1h"]
    facts += [f"p50 {figures.duration(policy.p50_ms)}", f"p99 {figures.duration(policy.p99_ms)}"]
    lines += [([(text, "quiet")], None) for text in _packed(facts, width)]
    for field, message in pending.wrong.items():
        if field not in {f"params.{param.name}" for param in policy.params}:
            lines.append(([(f"✗ {cell(field)}: {cell(message)}", "error")], None))
    if policy.params:
        lines.append(([("", "")], None))
    room = min(22, max((len(param.name) for param in policy.params), default=0) + 1)
    for place, param in enumerate(policy.params):
        note = ""
        if is_threshold(param):
            note = what_if(policy.recent_scores, float(param.value), float(pending.value_of(param)))
        lines += [(pieces, place) for pieces in param_lines(param, pending, room, width, note=note)]
    return lines


def _packed(facts: list[str], width: int) -> list[str]:
    rows: list[str] = []
    for fact in facts:
        if rows and len(rows[-1]) + 3 + len(fact) <= width:
            rows[-1] += f" · {fact}"
        else:
            rows.append(fact)
    return [fit(row, width).rstrip() for row in rows]


def _change(pending: Pending, policy: PolicyInfo) -> Line:
    mode = [f"mode {policy.mode} → {pending.mode}"] if pending.mode is not None else []
    return change_line([*mode, *changed_params(pending, policy.params)])


def changed_params(pending: Pending, params: Sequence[ParamInfo]) -> list[str]:
    """What is prepared, `threshold 0.50 → 0.55`."""
    before = {param.name: param.value for param in params}
    return [f"{cell(name)} {_short(before.get(name))} → {_short(value)}" for name, value in pending.params.items()]


def change_line(parts: Sequence[str]) -> Line:
    """That something is prepared, and the keys that apply or drop it."""
    return [("pending ", "badge"), (f" {' · '.join(parts)}  ", "warning"), ("enter", "key"), (" applies ", "quiet"),
            ("esc", "key"), (" drops", "quiet")], None  # fmt: skip


def _short(value: object) -> str:
    return fit(cell(as_text(value)), 24).rstrip()


def param_lines(param: ParamInfo, pending: Pending, room: int, width: int, *, note: str = "") -> list[list[Piece]]:
    """A parameter as a control, its name `room` cells wide; `note` says what the prepared value would do."""
    value = pending.value_of(param)
    is_changed = param.name in pending.params
    head: Piece = (fit(cell(param.name), room), "name")
    tone = "warning" if is_changed else ""
    lines: list[list[Piece]] = []
    default = "" if value == param.default else f"  default {_short(param.default)}"
    if can_move(param):
        bounds = f" {as_text(param.minimum)} to {as_text(param.maximum)}"
        lines.append([head, (f"{as_text(value)} ", tone or "strong"), *_slider(param, value), (bounds + default, "quiet")])
    else:
        text = figures.UNKNOWN if value in (None, "") else cell(as_text(value))
        extra = f"  one of {', '.join(map(cell, param.choices))}" if param.choices else ""
        space = max(12, width - room - len(default) - min(len(extra), width // 3))
        lines.append([head, (fit(text, space).rstrip(), tone), (extra + default, "quiet")])
    if note:
        lines.append([(" " * room, ""), (note, "notice")])
    if (wrong := pending.wrong.get(f"params.{param.name}")) is not None:
        lines.append([(" " * room, ""), (f"✗ {cell(wrong)}", "error")])
    if param.help:
        lines += [[(" " * room, ""), (text, "quiet")] for text in wrap(cell(param.help), max(20, width - room))]
    return lines


def _slider(param: ParamInfo, value: object) -> list[Piece]:
    low, high = param.minimum or 0.0, param.maximum if param.maximum is not None else 1.0
    number = float(value) if isinstance(value, int | float) else low
    part = (number - low) / (high - low) if high > low else 0.0
    place = max(0, min(SLIDER_WIDTH - 1, round(part * (SLIDER_WIDTH - 1))))
    return [("├", "quiet"), ("─" * place, "bar"), ("●", "accent"), ("─" * (SLIDER_WIDTH - 1 - place), "bar-rest"), ("┤", "quiet")]
