"""The tree of settings as it grows: values laid over each other source by source, with who set what, and what was wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from proxy_core.errors import ConfigurationError
from proxy_core.settings_tree import Place

DEFAULT = "default"


@dataclass
class Layers:
    """The tree as it grows, layer by layer, and who set what."""

    tree: dict[str, Any] = field(default_factory=dict)
    origins: dict[Place, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

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
        node[place[-1]] = value
        self._mark(place, value, origin)

    def _mark(self, place: Place, value: Any, origin: str) -> None:
        self.origins[place] = origin
        if isinstance(value, dict):
            for name, inner in value.items():
                self._mark((*place, str(name)), inner, origin)

    def get(self, place: Place) -> Any:
        node: Any = self.tree
        for name in place:
            if not isinstance(node, dict) or name not in node:
                return None
            node = node[name]
        return node

    def origin(self, place: Place) -> str:
        """Origin of a place, or of the nearest part of the tree around it that somebody set."""
        for length in range(len(place), 0, -1):
            if (known := self.origins.get(place[:length])) is not None:
                return known
        return DEFAULT

    def raise_faults(self) -> None:
        if self.faults:
            raise ConfigurationError("\n".join(dict.fromkeys(self.faults)))
