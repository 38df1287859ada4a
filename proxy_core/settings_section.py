"""What every part of the settings is."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

Seconds = Annotated[float, Field(gt=0, le=86_400)]


class Section(BaseModel):
    """A part of the tree: unknown keys are refused, values never change after loading."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name and _is_number(cls.model_fields[info.field_name].annotation):
            raise ValueError("give a number")
        return value


def _is_number(annotation: Any) -> bool:
    """Whether numbers are taken, and nothing else but their absence."""
    if get_origin(annotation) is Annotated:
        return _is_number(get_args(annotation)[0])
    kinds = [one for one in get_args(annotation) if one is not type(None)] or [annotation]
    return all(one in (int, float) or (one is not annotation and _is_number(one)) for one in kinds)
