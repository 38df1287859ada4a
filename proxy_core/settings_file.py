"""The YAML file of settings, read with the line of every value.

Imported only where a file is given. `${NAME}` anywhere in a string is replaced by the environment, `${NAME:-text}` by the
text where NAME is unset, `$${` stands for itself; replacing happens after parsing, so that a value can never change the
structure. Comments are not looked at. Faults carry `file NAME:LINE`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from proxy_core.errors import ConfigurationError
from proxy_core.settings_layers import Fault, Layers, Mark, SettingsInvalid, dotted
from proxy_core.settings_tree import Place, is_section

VARIABLE = re.compile(r"(\$?)\$\{([^{}\n]*)\}")
OPENED, CLOSED, ESCAPED = "\ue002\ue000", "\ue001", "\ue003"
"""As long as what they stand for (`${`, `}` and the first `$` of `$${`), so that columns stay true."""
MARKED = re.compile(f"{OPENED}([^{CLOSED}]*){CLOSED}")
MAX_NODES = 20_000
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def read_file(config: Path, variables: Mapping[str, str], layers: Layers) -> None:
    """Lay the file over `layers`. Raises ConfigurationError where it cannot be read as a mapping at all."""
    try:
        text = config.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigurationError(f"{config} is not UTF-8 text; save it as UTF-8") from None
    except OSError as fault:
        raise ConfigurationError(f"cannot read {config}: {fault.strerror or fault}; check --config") from fault
    reader = _Reader(config, text, variables, layers)
    tree = reader.tree()
    for name, value in tree.items():
        layers.tree[name] = value
    layers.origins.update(reader.places)
    layers.marks.update(reader.marks)


class _Reader:
    def __init__(self, config: Path, text: str, variables: Mapping[str, str], layers: Layers) -> None:
        self.config = config
        self.variables = variables
        self.layers = layers
        self.places: dict[Place, str] = {}
        self.marks: dict[Place, Mark] = {}
        self.nodes = 0
        # braces would end a plain scalar inside {…}, so references are marked with characters that mean nothing to YAML
        self.text = VARIABLE.sub(_mark, text)

    def tree(self) -> dict[str, Any]:
        try:
            self.loader = yaml.SafeLoader(self.text)
            node = self.loader.get_single_node()
            value = {} if node is None else self.value(node, ())
        except yaml.MarkedYAMLError as fault:
            mark = fault.problem_mark or fault.context_mark
            problem = _unmarked(fault.problem or fault.context or "not YAML")
            line = mark.line + 1 if mark is not None else 1
            column = mark.column + 1 if mark is not None else 1
            remedy = f"{problem}; check the indentation and quotes there"
            raise self.unreadable(f"{self.config}:{line}: {remedy}", remedy, (line, column)) from None
        except yaml.YAMLError as fault:
            raise ConfigurationError(f"{self.config}: not YAML: {' '.join(str(fault).split())}") from None
        except RecursionError:
            raise ConfigurationError(f"{self.config}: nested too deeply; settings have at most five levels") from None
        if not isinstance(value, dict):
            message = "the file has to be a mapping like `server: {port: 4000}`"
            raise self.unreadable(f"{self.config}:1: {message}", message, (1, 1))
        return value

    def unreadable(self, text: str, message: str, mark: Mark) -> SettingsInvalid:
        return SettingsInvalid([Fault(text, message, origin=f"file {self.config.name}:{mark[0]}", mark=mark)])

    def put(self, place: Place, node: yaml.Node) -> None:
        self.places[place] = self.origin(node)
        self.marks[place] = (node.start_mark.line + 1, node.start_mark.column + 1)

    def origin(self, node: yaml.Node) -> str:
        return f"file {self.config.name}:{node.start_mark.line + 1}"

    def value(self, node: yaml.Node, place: Place) -> Any:
        self.nodes += 1
        if self.nodes > MAX_NODES:
            raise ConfigurationError(f"{self.config}: more than {MAX_NODES} values; aliases may repeat without end")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.entry(inner, (*place, str(index))) for index, inner in enumerate(node.value)]
        value = self.loader.construct_object(node)
        return _text(self.replaced(value, node, place)) if isinstance(value, str) else value

    def entry(self, node: yaml.Node, place: Place) -> Any:
        self.put(place, node)
        return self.value(node, place)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, Any]:
        written = [key for key, _ in node.value]
        self.loader.flatten_mapping(node)
        found: dict[str, Any] = {}
        for key, inner in node.value:
            name = str(key.value) if isinstance(key, yaml.ScalarNode) else "?"
            name = _text(_unmarked(name))
            if name in found and key in written and self.places.get((*place, name)) != self.origin(key):
                earlier = self.places[*place, name]
                path = dotted((*place, name))
                text, message = (
                    f"{path} is set twice ({earlier} and {self.origin(key)}); keep one",
                    f"{path} is set twice; keep one",
                )
                mark = (key.start_mark.line + 1, key.start_mark.column + 1)
                self.layers.faults.append(Fault(text, message, path, self.origin(key), mark))
            self.put((*place, name), key)
            value = self.value(inner, (*place, name))
            if value is None and not isinstance(inner, yaml.MappingNode) and (not place or is_section((*place, name))):
                continue  # an empty section means its defaults
            found[name] = value
        return found

    def replaced(self, text: str, node: yaml.Node, place: Place) -> str:
        def value_of(match: re.Match[str]) -> str:
            name, has_default, default = match[1].partition(":-")
            if NAME.fullmatch(name) is None:
                self.fault(node, place, f"${{{match[1]}}} is no reference to a variable; write $${{…}} for the text itself")
                return ""
            if name in self.variables:
                return self.variables[name]
            if not has_default:
                self.fault(node, place, f"the environment variable {name} is not set; export it or write ${{{name}:-default}}")
            return default

        return MARKED.sub(value_of, text.replace(ESCAPED, ""))

    def fault(self, node: yaml.Node, place: Place, message: str) -> None:
        path, origin = dotted(place), self.origin(node)
        mark = (node.start_mark.line + 1, node.start_mark.column + 1)
        self.layers.faults.append(Fault(f"{path} ({origin}): {message}", f"{path}: {message}", path, origin, mark))


def _mark(match: re.Match[str]) -> str:
    return ESCAPED + match[0][1:] if match[1] else f"{OPENED}{match[2]}{CLOSED}"


def _unmarked(text: str) -> str:
    return text.replace(OPENED, "${").replace(CLOSED, "}").replace(ESCAPED, "")


def _text(value: str) -> str:
    """Escapes of half a character, which YAML allows and text does not, stay written out."""
    return value.encode("utf-8", "backslashreplace").decode("utf-8")
