"""Who a client is by its key: those of the configuration and those that `luthien keys` has made.

Keys that were made or revoked while the gateway runs hold within a second: the store is looked at once a second, and at once
where a key is not known. While the store cannot be read, the keys that were known last hold. A key is compared by its SHA-256,
which tells nothing of it however long that takes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Literal, NoReturn

from msgspec import Struct

from proxy_core.credentials import CREDENTIAL_HEADERS, LUTHIEN_KEY, RawHeaders, sent_key
from proxy_core.errors import KeyRefused
from proxy_core.journal.client_keys import ClientKeys, KeyLimits, sha256_of
from proxy_core.routing.reasons import Reason
from proxy_core.settings import ClientKeySettings
from proxy_core.tasks import spawn

log = logging.getLogger(__name__)

LOOK_EVERY_S = 1.0
MIN_LOOK_S = 0.1
"""The store is not looked at more often than that, however many keys come that nobody knows."""
LOOK_WITHIN_S = 5.0
MAX_KEYS_SENT = 8

_HOW = "as 'Authorization: Bearer KEY' or 'x-api-key'"


class ClientKey(Struct, frozen=True):
    """A key that was recognised."""

    name: str
    active: bool = True
    limits: KeyLimits = KeyLimits()


class KeyCheck:
    """Lets in who has a key."""

    def __init__(
        self,
        mode: Literal["gateway", "both"],
        *,
        store: ClientKeys,
        configured: Mapping[str, ClientKeySettings],
        clock: Callable[[], float],
    ) -> None:
        self._mode = mode
        self._store = store
        self._clock = clock
        self._stored: dict[str, ClientKey] = {}
        self._newest = -1
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._in_trouble = False
        self._task: asyncio.Task[None] | None = None
        self.use(configured)

    def use(self, configured: Mapping[str, ClientKeySettings]) -> None:
        """Know these keys of the configuration from now on."""
        self._configured: dict[str, ClientKey] = {}
        for name, one in configured.items():
            digest = one.sha256 or (sha256_of(one.key.get_secret_value().encode()) if one.key is not None else "")
            self._configured[digest] = ClientKey(name, one.active)

    async def start(self) -> None:
        """Read the keys, then look for changes."""
        await self._look_since(self._clock())
        self._task = spawn(self._watch(), name="watch the keys")

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])

    async def admit(self, headers: RawHeaders, query: bytes) -> ClientKey | None:
        """The client's key; None where its own credential is to be passed on. Raises KeyRefused."""
        if LUTHIEN_KEY in query:
            raise KeyRefused(Reason.KEY_NOT_ACCEPTED, f"send your key in a header, {_HOW}, not in the address")
        sent = [key for name, value in headers if name in CREDENTIAL_HEADERS and (key := sent_key(value))][:MAX_KEYS_SENT]
        if self._mode == "both":
            sent = [key for key in sent if key.startswith(LUTHIEN_KEY)]
            if not sent:
                return None
        if not sent:
            raise KeyRefused(Reason.KEY_MISSING, f"send a key of this gateway {_HOW}")
        found = self._find(sent)
        if found is None:
            await self._look_since(self._clock())
            found = self._find(sent)
        if found is None:
            _refuse_unknown()
        if not found.active:
            raise KeyRefused(Reason.KEY_REVOKED, f"the key '{found.name}' was revoked; ask for a new one")
        return found

    async def require(self, headers: RawHeaders, query: bytes) -> ClientKey:
        """The client's key, also where its own credential would do for an upstream. Raises KeyRefused."""
        found = await self.admit(headers, query)
        if found is None:
            raise KeyRefused(Reason.KEY_MISSING, f"send a key of this gateway {_HOW}")
        return found

    def _find(self, sent: list[bytes]) -> ClientKey | None:
        """The first of the keys that holds, else the first that is known at all."""
        known = [found for key in sent if (found := self._known(sha256_of(key))) is not None]
        return next((one for one in known if one.active), known[0] if known else None)

    def _known(self, digest: str) -> ClientKey | None:
        return self._stored.get(digest) or self._configured.get(digest)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self._look_since(self._clock())

    async def _look_since(self, asked_at: float) -> None:
        """Look once for all who have asked since the last look."""
        async with self._looking:
            if self._looked_at < asked_at:
                await asyncio.sleep(max(0.0, self._looked_at + MIN_LOOK_S - self._clock()))
                await self._look()

    async def _look(self) -> None:
        self._looked_at = self._clock()
        try:
            async with asyncio.timeout(LOOK_WITHIN_S):
                newest = await self._store.newest()
                if newest != self._newest:
                    stored = await self._store.all()
                    self._stored = {one.sha256: ClientKey(one.name, one.status == "active", one.limits) for one in stored}
                    self._newest = newest
        except Exception as error:  # SQLAlchemy's tree, the driver's own, and the system's
            if not self._in_trouble:
                log.error(
                    "the keys cannot be read, those known last hold: %s", (str(error) or type(error).__name__).splitlines()[0]
                )
            self._in_trouble = True
        else:
            self._in_trouble = False


def refuse_luthien_key(secrets: tuple[bytes, ...]) -> None:
    """In passthrough, a key of luthien's is not sent to an upstream. Raises KeyRefused."""
    for secret in secrets:
        if secret.startswith(LUTHIEN_KEY):
            raise KeyRefused(
                Reason.KEY_NOT_ACCEPTED,
                "this gateway passes the upstream's own keys on; set 'server.auth' to 'both' or 'gateway' to use luthien's",
            )


def _refuse_unknown() -> NoReturn:
    raise KeyRefused(Reason.KEY_UNKNOWN, "this key is none of this gateway's; `luthien keys list` shows them")
