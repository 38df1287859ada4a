"""What the app needs of a view: what its keys move, what it allows, what the status line says of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from textual.containers import Container
from textual.geometry import Size
from textual.screen import Screen
from textual.widget import Widget

from luthien_tui.widgets.body_view import BodyView
from luthien_tui.widgets.filter_line import TRANSACTIONS, Vocabulary
from luthien_tui.widgets.status_line import Standing
from proxy_core.control.plane import ControlPlane, GatewayState

Hints = tuple[tuple[str, str], ...]
"""Keys and what they do, while something is typed."""


@dataclass(frozen=True, slots=True)
class ViewContext:
    """What the app gives a view: the gateway, the time, and how to speak to the operator."""

    plane: ControlPlane
    clock: Callable[[], float]
    """Steady seconds."""
    wall: Callable[[], float]
    """Unix time."""
    say: Callable[..., None]
    """A word to the operator; `warn=True` where something went wrong."""
    ask: Callable[[Screen[Any], Callable[[Any], None]], object]
    """Show a window and hand its answer on."""


class Movable(Protocol):
    """Something that the keys of movement move."""

    @property
    def size(self) -> Size: ...

    def move(self, lines: int) -> None: ...

    def move_first(self) -> None: ...

    def move_last(self) -> None: ...


class View(Container):
    """One of the views; all are mounted, one is shown."""

    DEFAULT_CSS = """
    View { height: 1fr; display: none; }
    View.-shown { display: block; }
    """
    BLANK = True

    def tick(self, state: GatewayState, *, seen: bool) -> None:
        """Follow the gateway; called by the frame pump. `seen`: the operator looks at it."""

    def entered(self) -> None:
        """The operator has come here."""

    def home(self) -> Widget:
        """What has the focus when the operator comes here."""
        raise NotImplementedError

    def moved(self) -> Movable:
        """What the keys of movement move now."""
        raise NotImplementedError

    def switch_pane(self) -> None:
        """Go to the other part of the view, where there is one."""

    def allows(self, action: str) -> bool:
        """Whether an action that belongs to this view makes sense now."""
        return True

    @property
    def is_reading(self) -> bool:
        """Whether the keys move an open text, so that the way back comes first among the hints."""
        return False

    @property
    def typing(self) -> Hints:
        """What the keys do while something is typed here; empty: nothing is."""
        return ()

    def search_target(self) -> BodyView | None:
        """The text that a search looks through."""
        return None

    vocabulary: ClassVar[Vocabulary] = TRANSACTIONS
    """What may be asked for in this view's filter."""

    @property
    def filter_text(self) -> str:
        """The filter in force, as it is typed."""
        return ""

    def set_filter(self, text: str) -> None:
        """Show only what this filter means; it has been read by `vocabulary`."""

    def standing(self) -> Standing:
        """What the status line says."""
        return Standing(mode="")
