"""Blanks what has the form of a well-known key in a text that comes in pieces.

The result is the same wherever the text is cut. What is kept back is bounded: the word that is not over yet, or a private key
whose end has not come. Each place is decided once, when nothing that may follow can change it.
"""

from __future__ import annotations

from collections import Counter

from proxy_core.detectors.secrets import (
    MAX_PRIVATE_KEY_CHARS,
    MAX_TOKEN_CHARS,
    REDACTED,
    TOKEN_CHARS,
    TextFormats,
)

_FORMATS = TextFormats()
_BEGIN = "-----BEGIN "
_END = "PRIVATE KEY-----"


class SecretScanner:
    """One text. `kinds` counts what was blanked, by kind of key."""

    __slots__ = ("_before", "_key_begun", "_marker", "held", "kinds")

    def __init__(self, marker: str = REDACTED.decode("ascii")) -> None:
        self.held = ""
        self.kinds: Counter[str] = Counter()
        self._marker = marker
        self._key_begun = False
        """Whether what is held begins with the whole head of a private key."""
        self._before = ""
        """The character in front of what is held: it says whether a word begins there."""

    @property
    def changes(self) -> int:
        return self.kinds.total()

    def feed(self, text: str) -> str:
        """Take the next piece and give what is decided."""
        if not text:
            return ""
        if self._key_begun and "-" not in text and len(self.held) + len(text) < MAX_PRIVATE_KEY_CHARS:
            self.held += text
            return ""
        buffer = self._before + self.held + text
        return self._decide(buffer, self._undecided(buffer))

    def finish(self) -> str:
        """Give the rest."""
        buffer = self._before + self.held
        return self._decide(buffer, len(buffer))

    def _decide(self, buffer: str, limit: int) -> str:
        """Blank the matches that begin before `limit`, and hold back what follows the last decided place."""
        start = len(self._before)
        pieces: list[str] = []
        if start < limit:
            found = _FORMATS.search(buffer, start)
            while found is not None and found.start() < limit:
                self.kinds[found.lastgroup or ""] += 1
                pieces += (buffer[start : found.start()], self._marker)
                start = found.end()
                found = _FORMATS.search(buffer, start)
        end = max(start, limit)
        pieces.append(buffer[start:end])
        self.held = buffer[end:]
        self._before = buffer[end - 1 : end] if end else ""
        return "".join(pieces)

    def _undecided(self, buffer: str) -> int:
        """The first place at which a match may begin that what follows decides."""
        start = len(self._before)
        word = max(start, len(buffer.rstrip(TOKEN_CHARS)), len(buffer) - MAX_TOKEN_CHARS)
        # an earlier beginning that lacks its end may still be a private key; one that has it is decided
        self._key_begun = False
        at = buffer.find(_BEGIN, max(start, len(buffer) - MAX_PRIVATE_KEY_CHARS))
        while 0 <= at < word:
            found = _FORMATS.match(buffer, at)
            if found is None:
                if _may_become_private_key(buffer, at):
                    self._key_begun = _END in buffer[at:]
                    return at
                at = buffer.find(_BEGIN, at + 1)
            else:
                at = buffer.find(_BEGIN, found.end())
        return word


def _may_become_private_key(buffer: str, at: int) -> bool:
    """Whether what begins at `at` is the head of a private key, as far as it is there."""
    head = buffer[at + len(_BEGIN) : at + len(_BEGIN) + 30 + len(_END)]
    name = head.find(_END)
    if name >= 0:
        return name <= 30 and _is_label(head[:name])
    rest = head.rstrip("-")
    return len(head) < 30 + len(_END) and _is_label(rest) and (rest == head or rest.endswith("PRIVATE KEY"))


def _is_label(text: str) -> bool:
    return all(letter == " " or "A" <= letter <= "Z" for letter in text)
