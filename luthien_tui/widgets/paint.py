"""Drawing by lines: text with a named tone becomes a strip, cut or padded to the cell.

Tones are component classes whose colours come from the theme, so no widget knows a colour. Everything that is drawn
here must have come through `luthien_tui.text` where it is not luthien's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar

from rich.cells import cell_len, set_cell_size
from rich.segment import Segment
from rich.style import Style
from textual.screen import Screen
from textual.strip import Strip
from textual.widget import Widget

Piece = tuple[str, str]
"""Text and the name of its tone; an empty name is the widget's own style."""

TONES: frozenset[str] = frozenset(
    f"tone--{name}"
    for name in (
        "quiet", "strong", "accent", "ok", "busy", "notice", "warning", "error", "key", "head", "cursor", "cursor-away",
        "badge", "alarm", "match", "match-here",
        "name", "string", "number", "literal", "gutter", "pill", "tab", "bar", "bar-rest",
    )
)  # fmt: skip

TONE_CSS = """
.tone--quiet { color: $text-muted; }
.tone--strong { color: $foreground; text-style: bold; }
.tone--accent { color: $accent; text-style: bold; }
.tone--ok { color: $text-success; }
.tone--busy { color: $text-accent; }
.tone--notice { color: $text-secondary; }
.tone--warning { color: $text-warning; }
.tone--error { color: $text-error; text-style: bold; }
.tone--key { color: $accent; text-style: bold; }
.tone--head { color: $text-muted; background: $surface; }
.tone--cursor { background: $block-cursor-background 45%; }
.tone--cursor-away { background: $boost; }
.tone--badge { color: $text; background: $accent-muted; text-style: bold; }
.tone--alarm { color: $text-error; background: $error-muted; text-style: bold; }
.tone--match { background: $warning-muted; color: $text-warning; }
.tone--match-here { background: $warning; color: $background; text-style: bold; }
.tone--name { color: $text-primary; }
.tone--string { color: $text-success; }
.tone--number { color: $text-secondary; }
.tone--literal { color: $text-warning; }
.tone--gutter { color: $panel-lighten-2; }
.tone--pill { color: $background; background: $accent; text-style: bold; }
.tone--tab { color: $background; background: $accent; text-style: bold; }
.tone--bar { color: $accent; }
.tone--bar-rest { color: $panel-lighten-2; }
"""


class ToneScreen(Screen[None], inherit_bindings=False):
    """The screen below all others. It alone holds the tones, so that not every widget has to be styled with each of them."""

    COMPONENT_CLASSES: ClassVar[set[str]] = set(TONES)
    BLANK = True


class Painter(Widget):
    """A widget that draws its own lines with tones."""

    _tones: dict[str, Style] | None = None

    def forget_tones(self) -> None:
        """The colours have changed: draw everything anew."""
        self._tones = None
        self.refresh()

    def notify_style_update(self) -> None:
        super().notify_style_update()
        self._tones = None

    def tone(self, name: str) -> Style:
        """The style of a tone, to be added to the style of a line; transparent colours are mixed with the screen's."""
        if self._tones is None:
            self._tones = {"": Style.null()}
        found = self._tones.get(name)
        if found is None:
            styles = self.app.screen_stack[0].get_component_styles(f"tone--{name}")
            mixed = styles.rich_style
            found = self._tones[name] = Style(
                color=mixed.color if styles.has_rule("color") else None,
                bgcolor=mixed.bgcolor if styles.has_rule("background") else None,
                bold=mixed.bold,
            )
        return found

    def paint(self, pieces: Iterable[Piece], width: int, base: Style | None = None) -> Strip:
        """One line of exactly `width` cells."""
        base = self.rich_style if base is None else base
        segments: list[Segment] = []
        last_tone: str | None = None
        for text, tone in pieces:
            if tone == last_tone:
                segments[-1] = Segment(segments[-1].text + text, segments[-1].style)
            else:
                segments.append(Segment(text, base + self.tone(tone)))
                last_tone = tone
        return Strip(segments).adjust_cell_length(width, base)


def fit(text: str, width: int, *, right: bool = False) -> str:
    """`text` in exactly `width` cells; what does not fit ends with `…`."""
    if text.isascii():
        length = len(text)
        if length > width:
            return text[: width - 1] + "…" if width > 0 else ""
        return text.rjust(width) if right else text.ljust(width)
    length = cell_len(text)
    if length > width:
        return set_cell_size(text, width - 1) + "…" if width > 0 else ""
    return " " * (width - length) + text if right else text + " " * (width - length)


def spread(left: Sequence[Piece], right: Sequence[Piece], width: int) -> list[Piece]:
    """Pieces at both ends of a line; the right ones win where it is too short."""
    right_width = pieces_width(right)
    room = max(0, width - right_width)
    pieces, used = [], 0
    for text, tone in left:
        length = cell_len(text)
        if used + length > room:
            pieces.append((fit(text, room - used), tone))
            used = room
            break
        pieces.append((text, tone))
        used += length
    return [*pieces, (" " * (room - used), ""), *right]


def pieces_width(pieces: Iterable[Piece]) -> int:
    return sum(cell_len(text) for text, _ in pieces)
