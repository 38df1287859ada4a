"""Settings as they may be printed: no secrets, no passwords in URLs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, SecretStr

from proxy_core.settings import InterceptorSettings, PolicySettings


def shown(value: Any) -> Any:
    """A value as it may be printed: secrets say only whether they are set, URLs lose their password."""
    if isinstance(value, SecretStr):
        return "(set, hidden)"
    if isinstance(value, PolicySettings):
        from proxy_core.policies.masking import masked_raw

        named = {name: getattr(value, name) for name in type(value).model_fields}
        return {**named, "params": masked_raw(value.use, value.params)}
    if isinstance(value, InterceptorSettings):
        from proxy_core.interceptors.registry import shown_config

        return {"type": value.type, "enabled": value.enabled, "config": shown_config(value)}
    if isinstance(value, BaseModel):
        return {name: shown(getattr(value, name)) for name in type(value).model_fields}
    if isinstance(value, dict):
        return {name: shown(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [shown(inner) for inner in value]
    if isinstance(value, str) and "://" in value and "@" in value:
        scheme, _, rest = value.partition("://")
        user = rest.rpartition("@")[0].partition(":")[0]
        return f"{scheme}://{user}:***@{rest.rpartition('@')[2]}"
    return value
