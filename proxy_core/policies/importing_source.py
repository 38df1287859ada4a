"""One file of another program while it is read: the faults and notes found on the way, and the upstreams it needs."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from proxy_core.errors import ConfigurationError
from proxy_core.policies.registry import nearest
from proxy_core.settings import RESERVED_UPSTREAM_NAMES, Api, default_upstreams


class Source:
    """Gathers what there is to say, so that one run tells every fault."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self.notes: list[str] = []
        self._upstreams: dict[str, dict[str, str]] = {}

    def refuse(self, place: str, message: str) -> None:
        """Note a fault at `place`, such as `$.config.policies[2].type`."""
        self.faults.append(f"{place}: {message}")

    def note(self, message: str) -> None:
        """Note something that the operator should know; once."""
        if message not in self.notes:
            self.notes.append(message)

    def raise_faults(self) -> None:
        if self.faults:
            raise ConfigurationError("\n".join(dict.fromkeys(self.faults)))

    def section(self, value: Any, place: str, known: Iterable[str], *, open_ended: bool = False) -> dict[str, Any]:
        """The object at `place`; unknown keys are refused with the nearest known one. Null is an empty object.

        Of an `open_ended` one, keys that are no misspelling of a known one are left out with a note.
        """
        if value is None:
            return {}
        if not isinstance(value, dict):
            self.refuse(place, f"has to be an object, not {_kind(value)}")
            return {}
        names = list(known)
        for key in value:
            if key not in names:
                near = nearest(key, names)
                if open_ended and not near:
                    self.note(f"{place}.{key} says nothing to the program that the file is for, and is left out")
                    continue
                hint = f"did you mean {near}?" if near else f"known here: {', '.join(names) or 'nothing'}"
                self.refuse(f"{place}.{key}", f"unknown key; {hint}")
        return value

    def items(self, value: Any, place: str) -> list[Any]:
        """The list at `place`; null is an empty one."""
        if value is None:
            return []
        if not isinstance(value, list):
            self.refuse(place, f"has to be a list, not {_kind(value)}")
            return []
        return value

    def number(self, value: Any, place: str, *, low: float = 0, above: bool = False, whole: bool = False) -> Any:
        """A number from `low`, or `above` it; None where it is absent or refused."""
        if value is None:
            return None
        wanted = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, wanted) or value < low or (above and value == low):
            bound = f"above {low:g}" if above else f"from {low:g}"
            self.refuse(place, f"has to be a {'whole ' if whole else ''}number {bound}")
            return None
        return value

    def text(self, value: Any, place: str) -> str:
        """A text; empty where it is absent or refused."""
        if isinstance(value, str) and value:
            return value
        self.refuse(place, "missing; it has to be a text" if value in (None, "") else f"has to be a text, not {_kind(value)}")
        return ""

    # --- upstreams ---

    def upstream(self, url: str, api: Api, place: str, *, api_key: str = "") -> str:
        """Name of the upstream at `url`; one of luthien's own where it has that address.

        `api_key` is put into the settings of one that is new, such as `${VARIABLE}`.
        """
        try:
            parts = urlsplit(url.strip())
            host = parts.hostname or ""
        except ValueError:
            parts, host = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not host or parts.username or parts.query or parts.fragment:
            self.refuse(place, "has to be a URL like https://api.openai.com/v1, without user and query")
            return api
        root = url.strip().rstrip("/")
        for tail in ("/v1", "/api"):
            root = root.removesuffix(tail)
        usual = default_upstreams()[api]
        if root == usual.base_url:
            return api
        wanted_settings = {"api": api, "base_url": root} | ({"api_key": api_key} if api_key else {})
        for name, known in self._upstreams.items():
            if known == wanted_settings:
                return name
        wanted = re.sub(r"[^a-z0-9]+", "-", host.lower()).strip("-")[:32] or "upstream"
        name, count = wanted, 1
        while name in self._upstreams or name in RESERVED_UPSTREAM_NAMES or name in default_upstreams():
            count += 1
            name = f"{wanted}-{count}"
        self._upstreams[name] = wanted_settings
        return name

    def upstreams(self) -> dict[str, Any]:
        """The section `upstreams`: luthien's own first, so that they stay the default ones; empty where nothing was added."""
        if not self._upstreams:
            return {}
        return {"upstreams": {name: {"api": one.api} for name, one in default_upstreams().items()} | self._upstreams}


def literal(value: Any) -> Any:
    """The same JSON values, with `${…}` in texts kept from meaning a variable."""
    if isinstance(value, str):
        return value.replace("${", "$${")
    if isinstance(value, list):
        return [literal(one) for one in value]
    if isinstance(value, dict):
        return {literal(key): literal(one) for key, one in value.items()}
    return value


def _kind(value: Any) -> str:
    kinds = {str: "a text", bool: "true or false", int: "a number", float: "a number", list: "a list", dict: "an object"}
    return kinds.get(type(value), "null")
