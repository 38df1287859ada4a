"""luthien's own colours; every built-in theme of Textual works too."""

from __future__ import annotations

from textual.theme import Theme

LUTHIEN = Theme(
    name="luthien",
    primary="#7aa2f7",
    secondary="#b39df3",
    accent="#5fd7c7",
    foreground="#d5dbe8",
    background="#10131a",
    surface="#161a23",
    panel="#1d2330",
    success="#7ecf8d",
    warning="#e8b866",
    error="#ef6f7b",
    dark=True,
    variables={
        "block-cursor-background": "#33507a",
        "input-cursor-background": "#5fd7c7",
        "input-selection-background": "#5fd7c7 30%",
        "scrollbar": "#2b3447",
        "scrollbar-hover": "#3b475f",
        "scrollbar-active": "#5fd7c7",
        "scrollbar-background": "#10131a",
        "scrollbar-corner-color": "#10131a",
        "scrollbar-background-hover": "#10131a",
        "scrollbar-background-active": "#10131a",
    },
)
