"""SQLAlchemy's asynchronous engine without its ORM, which nothing here uses: 10 MB and 50 ms of every start.

The package `sqlalchemy.ext.asyncio` imports the ORM for its sessions. Only the module of the engine is loaded here; the
package itself is left for whoever imports it later, and finds the same classes.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import TYPE_CHECKING

__all__ = ["AsyncConnection", "AsyncEngine", "create_async_engine"]

_PACKAGE = "sqlalchemy.ext.asyncio"

if TYPE_CHECKING or _PACKAGE in sys.modules:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
else:
    _stand_in = ModuleType(_PACKAGE)
    _stand_in.__path__ = list(find_spec(_PACKAGE).submodule_search_locations)
    sys.modules[_PACKAGE] = _stand_in
    try:
        from sqlalchemy.ext.asyncio.engine import AsyncConnection, AsyncEngine, create_async_engine
    finally:
        del sys.modules[_PACKAGE]
