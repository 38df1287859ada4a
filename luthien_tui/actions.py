"""Everything an operator can do, once: keys, palette, help, footer and `docs/keys.md` are made from this list.

An action is a method `action_<name>` of the app. `where` says in which part of the screen it makes sense; the app refuses
it elsewhere, and the footer, the help and the palette leave it out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

Where = Literal["anywhere", "live", "detail", "list", "log"]
Group = Literal["Views", "Move", "Look", "Take along", "Program"]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be done by key, by palette, or from the help screen."""

    name: str
    title: str
    description: str
    keys: tuple[str, ...]
    group: Group
    where: Where = "anywhere"
    """`live` and `log`: that view is shown. `list`: the live view has rows. `detail`: a transaction is open."""
    destructive: bool = False
    """Whether it can take something away from somebody; then it asks first."""
    hint: str = ""
    """Word in the footer; empty: not shown there."""
    rank: int = 9
    """Order in the footer, the most used first."""


ACTIONS: tuple[Action, ...] = (
    Action("show_live", "Live", "Show the transactions as they happen", ("1",), "Views"),
    Action("show_log", "Log", "Show the program's own messages", ("2",), "Views"),
    Action("open", "Open", "Open the selected transaction; again: its text", ("enter",), "Look", "list", hint="open", rank=1),
    Action("close", "Close", "Close what is open, then clear the filter", ("escape",), "Look", hint="back", rank=6),
    Action("edit_filter", "Filter", "Show only what matches an expression", ("f",), "Look", "live", hint="filter", rank=2),
    Action("search", "Search", "Find text in the open transaction or the log", ("slash",), "Look", hint="search", rank=3),
    Action("next_match", "Next match", "Go to the next match of the search", ("n",), "Look"),
    Action("previous_match", "Previous match", "Go to the match before", ("N",), "Look"),
    Action("cursor_down", "Down", "One line down", ("j", "down"), "Move"),
    Action("cursor_up", "Up", "One line up; the list stops following", ("k", "up"), "Move"),
    Action("page_down", "Page down", "One page down", ("pagedown", "ctrl+d"), "Move"),
    Action("page_up", "Page up", "One page up", ("pageup", "ctrl+u"), "Move"),
    Action("first", "First", "Go to the beginning", ("g", "home"), "Move"),
    Action("last", "Last", "Go to the end; the list follows again", ("G", "end"), "Move"),
    Action("next_tab", "Next tab", "Next part of the open transaction", ("right", "l"), "Move", "detail", hint="tabs", rank=4),
    Action("previous_tab", "Previous tab", "Part before", ("left", "h"), "Move", "detail"),
    Action("switch_pane", "Switch pane", "To the list, to the text", ("tab", "shift+tab"), "Move", "detail", hint="pane", rank=5),
    Action("larger", "Larger", "Give the open transaction more room", ("plus", "equals_sign"), "Look", "detail"),
    Action("smaller", "Smaller", "Give the open transaction less room", ("minus",), "Look", "detail"),
    Action("follow", "Follow", "Keep the newest in sight, or stop doing so", ("F",), "Look", hint="follow", rank=7),
    Action("freeze", "Freeze", "Hold the list still; the traffic goes on", ("space",), "Look", "list", hint="freeze", rank=5),
    Action("copy", "Copy", "Copy the id, a body or a curl command", ("y",), "Take along", "list", hint="copy", rank=4),
    Action("copy_setup", "Setup", "Copy the line that points a client here", ("c",), "Take along", "live", hint="copy", rank=1),
    Action("choose_theme", "Theme", "Choose the colours", ("t",), "Program", hint="theme", rank=8),
    Action("palette", "Palette", "Find a command by name", ("ctrl+p",), "Program"),
    Action("help", "Help", "Show the keys that work here; enter runs one", ("question_mark",), "Program", hint="help", rank=0),
    Action("quit", "Quit", "Drain what is in flight and end", ("q", "ctrl+q"), "Program", destructive=True, hint="quit", rank=9),
    Action("hint_quit", "How to quit", "Say how to quit (ctrl+c does not)", ("ctrl+c",), "Program"),
)  # fmt: skip
BY_NAME: dict[str, Action] = {action.name: action for action in ACTIONS}

_KEY_NAMES = {
    "slash": "/",
    "question_mark": "?",
    "plus": "+",
    "equals_sign": "=",
    "minus": "-",
    "escape": "esc",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "pgup",
    "pagedown": "pgdn",
}


def key_name(key: str) -> str:
    """A key as a person writes it."""
    return _KEY_NAMES.get(key, key)


def key_names(action: Action) -> str:
    return " ".join(key_name(key) for key in action.keys)


def bindings() -> list[Binding]:
    """The key bindings of the app."""
    return [
        Binding(",".join(action.keys), action.name, action.title, show=False, id=action.name, tooltip=action.description)
        for action in ACTIONS
    ]


def keys_page() -> str:
    """The documentation page of the keys."""
    from proxy_core.control.filters import fields_table

    lines = [
        "# Keys",
        "",
        "Generated from the program's list of actions. `?` shows the same list inside luthien, and `enter` runs one.",
    ]
    for group in dict.fromkeys(action.group for action in ACTIONS):
        lines += ["", f"## {group}", "", "| key | action | what it does |", "|---|---|---|"]
        for action in ACTIONS:
            if action.group == group:
                keys = " ".join(f"`{key_name(key)}`" for key in action.keys)
                asks = " Asks first while transactions run." if action.destructive else ""
                lines.append(f"| {keys} | {action.title} | {action.description}.{asks} |")
    lines += [
        "",
        "## Filter",
        "",
        "`f` opens the filter line. Terms stand side by side (`and`), or are joined by `and`, `or`, `not` and parentheses:",
        '`model:claude* latency>800 and not upstream:local`. A bare word or a `"quoted phrase"` searches id, session, agent,',
        "model, upstream, path, error and the beginning of the last message. Globs (`*`, `?`) ignore case. Numbers compare with",
        "`>  >=  <  <=  =  !=` and take units (`ms`, `s`, `m`, `k`, `M`, `$`); an unknown number matches no comparison.",
        "A mistake names its column, and the filter before it stays in force. `esc` in the list clears the filter.",
        "",
        fields_table().rstrip(),
        "",
    ]
    return "\n".join(lines)
