"""What the tree of settings looks like: which places there are, and which one a wrong name was meant to be. Pure."""

from __future__ import annotations

from typing import Any, get_args, get_origin

from pydantic import BaseModel

from proxy_core.settings import Settings

Place = tuple[str, ...]
"""A place in the tree, `("server", "port")`; entries of lists are numbered from 0."""


def known_places(model: type[BaseModel] = Settings, around: Place = ()) -> list[Place]:
    """Every setting as a place in the tree; `*` stands for a name that the user chooses, or a place in a list."""
    found: list[Place] = []
    for name, info in model.model_fields.items():
        inner, named = model_of(info.annotation)
        place = (*around, name, "*") if named and inner is not None else (*around, name)
        found.extend(known_places(inner, place) if inner is not None else [place])
    return found


def model_of(annotation: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model inside an annotation (`M`, `M | None`, `dict[str, M]`, `list[M]`), and whether names stand before it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, False
    if get_origin(annotation) in (dict, list):
        return model_of(get_args(annotation)[-1])[0], True
    for argument in get_args(annotation):
        if isinstance(argument, type) and issubclass(argument, BaseModel):
            return argument, False
    return None, False


def kind_at(place: Place) -> str | None:
    """`leaf`, `tree` or None where the tree has no such place."""
    for known in known_places():
        if all(a in ("*", b) for a, b in zip(known, place, strict=False)) and len(known) >= len(place):
            return "leaf" if len(known) == len(place) else "tree"
    return None


def is_section(place: Place) -> bool:
    """Whether settings stand below this place, and no names that the user chooses."""
    return any(
        len(known) > len(place)
        and all(a in ("*", b) for a, b in zip(known, place, strict=False))
        and "*" not in known[len(place) - 1 : len(place) + 1]
        for known in known_places()
    )


def list_around(place: Place) -> Place | None:
    """The list that is at `place` or around it."""
    model: type[BaseModel] | None = Settings
    for at, name in enumerate(place):
        info = model.model_fields.get(name) if model is not None else None
        if info is None:
            return None  # a name that the user chose, and what is below it
        if get_origin(info.annotation) is list:
            return place[: at + 1]
        model = model_of(info.annotation)[0]
    return None


def nearest(word: str, known: list[str]) -> str | None:
    """The known word that `word` was most likely meant to be."""
    import difflib

    return next(iter(difflib.get_close_matches(word, known, n=1, cutoff=0.72)), None)


def near_setting(place: Place) -> str:
    """The setting that a wrong name was most likely meant to be: of the same section, or dotted from the top; or empty."""
    if (near := nearest(place[-1], known_names(place))) is not None:
        return near
    return next((".".join(known) for known in known_places() if known[-1] == place[-1]), "")


def known_names(place: Place) -> list[str]:
    """What could stand where the last part of `place` stands."""
    return sorted({known[len(place) - 1] for known in _known_beside(place)})


def _known_beside(place: Place) -> list[Place]:
    def fits(known: Place) -> bool:
        around = zip(known[: len(place) - 1], place[:-1], strict=False)
        return len(known) >= len(place) and all(a in ("*", b) for a, b in around)

    return [known for known in known_places() if fits(known)]
