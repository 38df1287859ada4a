"""Everything an operator can do, once: keys, palette, help, footer and `docs/keys.md` are made from this list.

An action is a method `action_<name>` of the app. `views` says where it makes sense, and the shown view says whether it does
now; the app refuses it elsewhere, and the footer, the help and the palette leave it out. What decides on something held is
done by its key alone: no click, no palette and no help runs it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from textual.binding import Binding

ViewName = Literal["live", "holds", "sessions", "policies", "routing", "log"]
Group = Literal["Views", "Move", "Look", "Decide", "Sessions", "Policies", "Routing", "Take along", "Program"]


@dataclass(frozen=True, slots=True)
class Action:
    """One thing that can be done by key, by palette, or from the help screen."""

    name: str
    title: str
    description: str
    keys: tuple[str, ...]
    group: Group
    views: tuple[ViewName, ...] = ()
    """Where it makes sense; empty: anywhere."""
    destructive: bool = False
    """Whether it can take something away from somebody; then it asks first."""
    by_key_only: bool = False
    """Whether it decides on something held, so that only its key does it."""
    hint: str = ""
    """Word in the footer; empty: not shown there."""
    rank: int = 9
    """Order in the footer, the most used first."""


ACTIONS: tuple[Action, ...] = (
    Action("show_live", "Live", "Show the transactions as they happen", ("1",), "Views"),
    Action("show_holds", "Holds", "Show what waits for a decision", ("2",), "Views"),
    Action("show_sessions", "Sessions", "Show the sessions and agents that requests belong to", ("3",), "Views"),
    Action("show_policies", "Policies", "Show the chain of policies, and change it", ("4",), "Views"),
    Action("show_routing", "Routing", "Show where requests go and why, and change it", ("5",), "Views"),
    Action("show_log", "Log", "Show the program's own messages", ("8",), "Views"),
    Action("open", "Open", "Open what is selected; again: go to its text, unfold it",
           ("enter",), "Look", ("live", "sessions"), hint="open", rank=1),
    Action("close", "Close", "Close what is open, then clear the filter",
           ("escape",), "Look", ("live", "sessions"), hint="back", rank=6),
    Action("read_hold", "Read", "Go to the text of what is held", ("enter",), "Look", ("holds",), hint="read", rank=5),
    Action("leave_hold", "Back", "Go back to the queue", ("escape",), "Look", ("holds",), hint="back", rank=6),
    Action("edit_filter", "Filter", "Show only what matches an expression",
           ("f",), "Look", ("live", "sessions"), hint="filter", rank=2),
    Action("search", "Search", "Find text in what is open, or in the log", ("slash",), "Look", hint="search", rank=6),
    Action("next_match", "Next match", "Go to the next match of the search", ("n",), "Look"),
    Action("previous_match", "Previous match", "Go to the match before", ("N",), "Look"),
    Action("cursor_down", "Down", "One line down", ("j", "down"), "Move"),
    Action("cursor_up", "Up", "One line up; the list stops following", ("k", "up"), "Move"),
    Action("page_down", "Page down", "One page down", ("pagedown", "ctrl+d"), "Move"),
    Action("page_up", "Page up", "One page up", ("pageup", "ctrl+u"), "Move"),
    Action("first", "First", "Go to the beginning", ("g", "home"), "Move"),
    Action("last", "Last", "Go to the end; the list follows again", ("G", "end"), "Move"),
    Action("next_tab", "Next tab", "Next part of the open transaction", ("right", "l"), "Move", ("live",), hint="tabs", rank=4),
    Action("previous_tab", "Previous tab", "Part before", ("left", "h"), "Move", ("live",)),
    Action("switch_pane", "Switch pane", "To the list, to the text beside it",
           ("tab", "shift+tab"), "Move", ("live", "holds", "sessions", "policies", "routing"), hint="pane", rank=5),
    Action("larger", "Larger", "Give the open transaction more room", ("plus", "equals_sign"), "Look", ("live",)),
    Action("smaller", "Smaller", "Give the open transaction less room", ("minus",), "Look", ("live",)),
    Action("follow", "Follow", "Keep the newest in sight, or stop doing so",
           ("F",), "Look", ("live", "sessions", "log"), hint="follow", rank=7),
    Action("freeze", "Freeze", "Hold the list still; the traffic goes on", ("space",), "Look", ("live",), hint="freeze", rank=5),
    Action("go_to_hold", "Decide", "Show the selected transaction's hold, to decide on it there",
           ("a", "e", "x"), "Decide", ("live",), hint="decide", rank=0),
    Action("approve", "Approve", "Let what is shown happen; works once its end was on screen",
           ("a",), "Decide", ("holds",), by_key_only=True, hint="approve", rank=1),
    Action("edit_held", "Edit", "Change what is held, then approve that",
           ("e",), "Decide", ("holds",), by_key_only=True, hint="edit", rank=3),
    Action("deny", "Deny", "Refuse what is shown, with a reason for the client",
           ("x",), "Decide", ("holds",), by_key_only=True, hint="deny", rank=2),
    Action("more_time", "More time", "Give it five minutes more",
           ("t",), "Decide", ("holds",), by_key_only=True, hint="more time", rank=4),
    Action("kill", "Kill", "End the selected transaction while it runs",
           ("K",), "Decide", ("live",), destructive=True, hint="kill", rank=8),
    Action("show_session", "Session", "Show the session of the selected transaction",
           ("s",), "Sessions", ("live",), hint="session", rank=8),
    Action("toggle_agents", "Agents", "Show agents in place of sessions, or sessions again",
           ("a",), "Sessions", ("sessions",), hint="agents", rank=3),
    Action("sessions_of_agent", "Its sessions", "Show the sessions of the selected agent",
           ("s",), "Sessions", ("sessions",), hint="its sessions", rank=2),
    Action("sort_sessions", "Sort", "Choose what the sessions are sorted by",
           ("o",), "Sessions", ("sessions",), hint="sort", rank=4),
    Action("reverse_sort", "Reverse", "Sort the other way round", ("v",), "Sessions", ("sessions",), hint="reverse", rank=8),
    Action("fold", "Fold", "Hide or show the sub-agents of the session, or fold what is under the cursor",
           ("space",), "Sessions", ("sessions",), hint="fold", rank=7),
    Action("unfold_all", "Unfold all", "Unfold everything in the conversation, or fold it again",
           ("z",), "Sessions", ("sessions",), hint="unfold all", rank=7),
    Action("next_turn", "Next turn", "Go to the next turn",
           ("right", "l", "right_square_bracket"), "Sessions", ("sessions",), hint="turns", rank=4),
    Action("previous_turn", "Turn before", "Go to the turn before",
           ("left", "h", "left_square_bracket"), "Sessions", ("sessions",)),
    Action("diff_turn", "Diff", "Show what changed from the turn before to this one",
           ("d",), "Sessions", ("sessions",), hint="diff", rank=2),
    Action("decide_turn", "Decide", "Show what waits of this turn, to decide on it there",
           ("x",), "Decide", ("sessions",), hint="decide", rank=0),
    Action("show_transaction", "Transaction", "Show the transaction of this turn in the live view",
           ("t",), "Sessions", ("sessions",), hint="transaction", rank=3),
    Action("cycle_mode", "Mode", "Turn the policy's mode: off, shadow, enforce",
           ("space",), "Policies", ("policies",), hint="mode", rank=2),
    Action("lower", "Less", "Move the chosen parameter down by a step", ("left", "h"), "Policies", ("policies", "routing")),
    Action("raise", "More", "Move the chosen parameter up by a step",
           ("right", "l"), "Policies", ("policies", "routing"), hint="move", rank=3),
    Action("lower_far", "Much less", "Move it down by ten steps", ("shift+left",), "Policies", ("policies", "routing")),
    Action("raise_far", "Much more", "Move it up by ten steps", ("shift+right",), "Policies", ("policies", "routing")),
    Action("apply", "Apply", "Put the pending change in force; without one, edit the chosen parameter",
           ("enter",), "Policies", ("policies", "routing"), hint="apply", rank=1),
    Action("edit_param", "Edit", "Type a value for the chosen parameter",
           ("e",), "Policies", ("policies", "routing"), hint="edit", rank=4),
    Action("drop", "Drop", "Drop the pending change", ("escape",), "Policies", ("policies", "routing"), hint="drop", rank=5),
    Action("force_local", "Keep local", "Keep every request local, or let the rules decide again",
           ("L",), "Routing", ("routing",), destructive=True, hint="keep local", rank=2),
    Action("drain", "Drain", "Send no more to the chosen upstream that another can take, or do again",
           ("d",), "Routing", ("routing",), hint="drain", rank=3),
    Action("freeze_upstream", "Freeze", "Send nothing to the chosen upstream, or do again",
           ("z",), "Routing", ("routing",), hint="freeze", rank=3),
    Action("undo", "Undo", "Take back the last change that was made in this view",
           ("u",), "Routing", ("routing",), hint="undo", rank=4),
    Action("copy", "Copy", "Copy the id, a body or a curl command",
           ("y",), "Take along", ("live", "sessions"), hint="copy", rank=4),
    Action("export_session", "Export", "Write the session to a file, as Markdown or JSON lines",
           ("e",), "Take along", ("sessions",), hint="export", rank=6),
    Action("copy_setup", "Setup", "Copy the line that points a client here",
           ("c",), "Take along", ("live", "sessions"), hint="copy", rank=1),
    Action("choose_theme", "Theme", "Choose the colours", ("T",), "Program", hint="theme", rank=8),
    Action("palette", "Palette", "Find a command by name", ("ctrl+p",), "Program"),
    Action("help", "Help", "Show the keys that work here; enter runs one", ("question_mark",), "Program", hint="help", rank=-1),
    Action("quit", "Quit", "Drain what is in flight and end", ("q", "ctrl+q"), "Program", destructive=True, hint="quit", rank=9),
    Action("hint_quit", "How to quit", "Say how to quit (ctrl+c does not)", ("ctrl+c",), "Program"),
)  # fmt: skip
BY_NAME: dict[str, Action] = {action.name: action for action in ACTIONS}

_KEY_NAMES = {
    "slash": "/",
    "question_mark": "?",
    "plus": "+",
    "equals_sign": "=",
    "right_square_bracket": "]",
    "left_square_bracket": "[",
    "minus": "-",
    "escape": "esc",
    "up": "↑",
    "down": "↓",
    "left": "←",
    "right": "→",
    "pageup": "pgup",
    "pagedown": "pgdn",
    "shift+left": "shift+←",
    "shift+right": "shift+→",
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
    from proxy_core.control import filters, session_filters
    from proxy_core.control.filter_language import fields_table

    lines = [
        "# Keys",
        "",
        "Generated from the program's list of actions. `?` shows the same list inside luthien, and `enter` runs one.",
        "In parentheses: the views where a key works; the others work everywhere.",
    ]
    for group in dict.fromkeys(action.group for action in ACTIONS):
        lines += ["", f"## {group}", "", "| key | action | what it does |", "|---|---|---|"]
        for action in ACTIONS:
            if action.group == group:
                keys = " ".join(f"`{key_name(key)}`" for key in action.keys)
                asks = " Asks first." if action.destructive else ""
                place = f" ({', '.join(action.views)})" if action.views else ""
                lines.append(f"| {keys} | {action.title} | {action.description}.{asks}{place} |")
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
        fields_table(filters.FIELDS).rstrip(),
        "",
        "### In the view Sessions",
        "",
        "There the words are those of sessions: `agent:codex cost>1 is:active and not tool:bash`.",
        "",
        fields_table(session_filters.FIELDS).rstrip(),
        "",
    ]
    return "\n".join(lines)
