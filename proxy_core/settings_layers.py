"""The tree of settings as it grows: values laid over each other source by source, with who set what, and what was wrong."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from proxy_core.errors import ConfigurationError
from proxy_core.settings_tree import Place

DEFAULT = "default"
FILE = "file "
"""What the origin of a setting begins with that the configuration file has set."""

Mark = tuple[int, int]
"""Line and column in the file, from 1."""
_NOWHERE: Mark = (sys.maxsize, 0)


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with the settings."""

    text: str
    """The whole line: what is wrong, where that was set, what would be right."""
    message: str
    """The same without where it was set."""
    path: str = ""
    """The setting, dotted; empty where it is about all of them."""
    origin: str = ""
    """Where it was set; empty where nobody did."""
    mark: Mark | None = None
    """Where that is in the file."""
    near: str = ""
    """The name that was most likely meant."""


class SettingsInvalid(ConfigurationError):
    """Settings are wrong; the message has a line for each fault."""

    def __init__(self, faults: Sequence[Fault]) -> None:
        each = tuple({one.text: one for one in reversed(faults)}.values())[::-1]
        self.faults = tuple(sorted(each, key=lambda one: one.mark or _NOWHERE))
        super().__init__("\n".join(one.text for one in self.faults))


@dataclass
class Layers:
    """The tree as it grows, layer by layer, and who set what."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    marks: dict[Place, Mark] = field(default_factory=dict)
    """Where each setting of the file stands in it."""
    written: dict[Place, str] = field(default_factory=dict)
    """What those are called in the file that stand elsewhere there."""

    def put(self, place: Place, value: Any, origin: str) -> None:
        """Set one value; what was below or beside it in an earlier layer stays unless it is this very place."""
        node = self.tree
        for name in place[:-1]:
            inner = node.get(name)
            if not isinstance(inner, dict):
                inner = node[name] = {}
            node = inner
        for known in [known for known in self.origins if known[: len(place)] == place]:
            del self.origins[known]
            self.marks.pop(known, None)
        node[place[-1]] = value
        self._mark(place, value, origin)

    def _mark(self, place: Place, value: Any, origin: str) -> None:
        self.origins[place] = origin
        if isinstance(value, dict):
            for name, inner in value.items():
                self._mark((*place, str(name)), inner, origin)

    def move(self, old: Place, new: Place) -> None:
        """Put a value elsewhere; it is still told of by the place where it was written."""
        origin, mark = found_origin(self.origins, self.marks, old)
        value = self.get(old)
        self.drop(old)
        self.put(new, value, origin)
        self.written[new] = dotted(old)
        if mark is not None:
            self.marks[new] = mark

    def drop(self, place: Place) -> None:
        """Forget a value."""
        around = self.get(place[:-1]) if len(place) > 1 else self.tree
        if isinstance(around, dict):
            around.pop(place[-1], None)

    def get(self, place: Place) -> Any:
        node: Any = self.tree
        for name in place:
            if not isinstance(node, dict) or name not in node:
                return None
            node = node[name]
        return node

    def origin(self, place: Place) -> str:
        """Origin of a place, or of the nearest part of the tree around it that somebody set."""
        return found_origin(self.origins, self.marks, place)[0]

    def fault(self, place: Place, before: str, after: str, near: str = "") -> None:
        """Note what is wrong with a setting; where it was set stands between the two parts of the sentence."""
        self.faults.append(fault_at(self.origins, self.marks, place, before, after, near))

    def complain(self, text: str) -> None:
        """Note what is wrong without a setting of its own."""
        self.faults.append(Fault(text, text))

    def raise_faults(self) -> None:
        """Raises SettingsInvalid where anything is wrong."""
        if self.faults:
            raise SettingsInvalid(self.faults)


def found_origin(origins: Mapping[Place, str], marks: Mapping[Place, Mark], place: Place) -> tuple[str, Mark | None]:
    """Origin and mark of a place, or of the nearest part of the tree around it that somebody set."""
    for length in range(len(place), 0, -1):
        if (known := origins.get(place[:length])) is not None:
            return known, marks.get(place[:length]) if known.startswith(FILE) else None
    return DEFAULT, None


def fault_at(
    origins: Mapping[Place, str], marks: Mapping[Place, Mark], place: Place, before: str, after: str, near: str = ""
) -> Fault:
    """A fault of one setting, placed."""
    origin, mark = found_origin(origins, marks, place)
    return Fault(f"{before} ({origin}){after}", f"{before}{after}", dotted(place), origin, mark, near)


def dotted(place: Place) -> str:
    """A place as it is written, `policies[2].mode`."""
    return "".join(f"[{part}]" if part.isdigit() else f".{part}" for part in place).removeprefix(".")
