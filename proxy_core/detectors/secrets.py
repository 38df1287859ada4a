"""Credentials in bytes: find them and take them out before anything is stored or shown.

Two sources: values known from the request's own headers, and a short table of prefix-anchored key formats.
Pure functions, linear in the length of the text; the bounded quantifiers keep hostile input cheap.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from operator import is_

REDACTED = b"[redacted]"
MIN_KNOWN_BYTES = 8
"""Shorter known values are not searched for: they would hit ordinary words."""

FORMATS: tuple[tuple[str, str], ...] = (
    ("anthropic_key", r"\bsk-ant-[a-z0-9]{2,8}-[A-Za-z0-9_\-]{20,400}"),
    ("openai_key", r"\bsk-(?:proj|svcacct|admin)-[A-Za-z0-9_\-]{20,400}"),
    ("openrouter_key", r"\bsk-or-v1-[A-Za-z0-9_\-]{20,400}"),
    ("sk_key", r"\bsk-(?:lf-)?[A-Za-z0-9_\-]{20,400}"),
    ("aws_access_key", r"\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
    ("github_token", r"\bgh[pousr]_[A-Za-z0-9]{36,255}\b"),
    ("github_pat", r"\bgithub_pat_[A-Za-z0-9_]{50,255}\b"),
    ("gitlab_token", r"\bglpat-[A-Za-z0-9_\-]{20,64}"),
    ("slack_token", r"\bxox[abeoprs]-[A-Za-z0-9\-]{10,250}"),
    ("google_key", r"\bAIza[0-9A-Za-z_\-]{35}"),
    ("stripe_key", r"\b[rs]k_live_[A-Za-z0-9]{20,247}\b"),
    ("huggingface_token", r"\bhf_[A-Za-z0-9]{30,60}\b"),
    ("npm_token", r"\bnpm_[A-Za-z0-9]{36}\b"),
    ("pypi_token", r"\bpypi-[A-Za-z0-9_\-]{50,400}"),
    ("luthien_key", r"\blth_[A-Za-z0-9_\-]{43}"),
    ("sendgrid_key", r"\bSG\.[A-Za-z0-9_\-]{16,32}\.[A-Za-z0-9_\-]{30,64}"),
    ("groq_key", r"\bgsk_[A-Za-z0-9]{40,60}\b"),
    (
        "private_key",
        # stops at the next label, so a text of nothing but beginnings costs linear time
        r"-----BEGIN [A-Z ]{0,30}PRIVATE KEY-----(?:[^-]|-(?!----(?:BEGIN|END) )){0,8000}+-----END [A-Z ]{0,30}PRIVATE KEY-----",
    ),
)
"""Formats of well-known keys, by kind; the more exact one stands first. Word boundaries and classes are those of ASCII."""
TOKEN_CHARS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-."  # noqa: S105 - letters
"""What every format but `private_key` consists of."""
MAX_TOKEN_CHARS = 480
"""No match of a format but `private_key` is longer."""
MAX_PRIVATE_KEY_CHARS = 8_200
"""No match of `private_key` is longer."""
PIECE_BYTES = 128 * 1024
"""A larger text is looked through in pieces: a search lets no other thread run, and one key must not cost the whole text."""
_BETWEEN_TOKENS = re.compile(rb"[^%s]" % re.escape(TOKEN_CHARS.encode("ascii")))
_COMPILED = tuple(re.compile(pattern.encode("ascii"), re.DOTALL) for _, pattern in FORMATS)
_HINT = re.compile(
    rb"-(?:(?<=\bsk-)|(?<=glpat-)|(?<=pypi-)|(?<=xox[abeoprs]-)|(?<=-----)(?=BEGIN ))"
    rb"|_(?:(?<=gh[pousr]_)|(?<=hf_)|(?<=\blth_)|(?<=npm_)|(?<=gsk_)|(?<=_pat_)|(?<=k_live_))"
    rb"|IA(?:(?<=\bAKIA)|(?<=\bASIA))|Iza|SG\."
)
"""What every format has near its beginning, found by its rarest byte: one search tells for nearly every text that there is
nothing to take out."""
_TEXT_HINT = re.compile(_HINT.pattern.decode("ascii"), re.ASCII)
_BEGINNINGS = re.compile(
    r"sk-|AKIA|ASIA|gh[pousr]_|github_pat_|glpat-|xox[abeoprs]-|AIza|[rs]k_live_|hf_|lth_|npm_|pypi-|SG\.|gsk_|-----BEGIN "
)

_SECRET_HEADER = re.compile(
    r"(?:^|-)(?:authorization|cookie|cookie2|api-?key|key|token|secret|password|credential|credentials|signature)$"
)
_SECRET_PARAMETER = re.compile(
    rb"(?i)((?:^|&)(?:key|api[_-]?key|access[_-]?token|token|secret|password|sig|signature|code)=)[^&]*"
)
_SCHEME = re.compile(rb"^(?:Bearer|Basic|Token|AWS4-HMAC-SHA256) ", re.IGNORECASE)


def redact_known(text: bytes, known: Sequence[bytes]) -> bytes:
    """`text` without the known values."""
    for value in known:
        if value in text:
            text = text.replace(value, REDACTED)
    return text


def redact_formats(text: bytes) -> bytes:
    """`text` without anything that has the form of a well-known key; the same object where there is none."""
    if len(text) > PIECE_BYTES:
        given = list(pieces(text))
        kept = [_redact_piece(piece) for piece in given]
        return text if all(map(is_, given, kept)) else b"".join(kept)
    return _redact_piece(text)


def pieces(text: bytes) -> Iterator[bytes]:
    """A large text in parts of 128 KiB or somewhat more, cut where no key can span the cut."""
    start = 0
    while start < len(text):
        between = _BETWEEN_TOKENS.search(text, start + PIECE_BYTES)
        end = between.end() if between is not None else len(text)
        begun = text.find(b"-----BEGIN ", end - MAX_PRIVATE_KEY_CHARS, end) if end < len(text) else -1
        end = begun if begun >= 0 else end
        yield text[start:end]
        start = end


def _redact_piece(text: bytes) -> bytes:
    if _HINT.search(text) is None:
        return text
    for pattern in _COMPILED:
        text = pattern.sub(REDACTED, text)
    return text


class TextFormats:
    """Formats to be looked for in text, all at once; each begins with one of the known beginnings."""

    def __init__(self, formats: Sequence[tuple[str, str]] = FORMATS) -> None:
        kinds = [f"(?P<{kind}>{pattern})" for kind, pattern in formats]
        self._any = re.compile("|".join(kinds), re.DOTALL | re.ASCII)

    def search(self, text: str, start: int = 0) -> re.Match[str] | None:
        """The first match at or after `start`; its `lastgroup` is the kind."""
        hint = _TEXT_HINT.search(text, start)
        while hint is not None:
            end = hint.end() + 7
            begins = _BEGINNINGS.search(text, max(start, hint.start() - 11), end)
            while begins is not None:
                found = self.match(text, begins.start())
                if found is not None:
                    return found
                begins = _BEGINNINGS.search(text, begins.start() + 1, end)
            hint = _TEXT_HINT.search(text, hint.end())
        return None

    def match(self, text: str, at: int) -> re.Match[str] | None:
        """The match that begins at `at`."""
        return self._any.match(text, at)


def is_secret_header(name: str) -> bool:
    """Whether the value of the header `name` (lower case) is a credential."""
    return _SECRET_HEADER.search(name) is not None


@lru_cache(maxsize=1_000)
def _read_name(raw_name: bytes) -> tuple[str, bool]:
    """A header's name in lower case, and whether its value is a credential."""
    name = raw_name.decode("latin-1").lower()
    return name, is_secret_header(name)


def redact_headers(headers: Iterable[tuple[bytes, bytes]], known: Sequence[bytes] = ()) -> list[tuple[str, str]]:
    """Headers as text, lower-case names, with credentials taken out; an authorization keeps its scheme."""
    return redacted_headers(headers, known)[0]


def redacted_headers(headers: Iterable[tuple[bytes, bytes]], known: Sequence[bytes] = ()) -> tuple[list[tuple[str, str]], bool]:
    """The same, and whether anything was taken out."""
    pairs = [(*_read_name(name), value) for name, value in headers]
    # Nearly always there is nothing to find in the rest: one search over all values tells.
    together = b"\n".join([value for _, secret, value in pairs if not secret])
    changed = suspicious = redact_formats(redact_known(together, known)) != together
    shown = []
    for name, secret, value in pairs:
        if secret:
            changed = True
            scheme = _SCHEME.match(value)
            shown.append((name, ((scheme.group() if scheme else b"") + REDACTED).decode("ascii")))
        elif suspicious:
            shown.append((name, redact_formats(redact_known(value, known)).decode("latin-1")))
        else:
            shown.append((name, value.decode("latin-1")))
    return shown, changed


def redact_query(query: bytes) -> bytes:
    """A raw query string with the values of credential parameters taken out."""
    return redact_formats(_SECRET_PARAMETER.sub(rb"\1" + REDACTED, query)) if query else query


def known_secrets(headers: Iterable[tuple[bytes, bytes]], query: bytes, configured: Sequence[bytes] = ()) -> tuple[bytes, ...]:
    """The credentials that a request carries, to be searched for in bodies; lower-case header names expected."""
    found: set[bytes] = {value for value in configured if len(value) >= MIN_KNOWN_BYTES} if configured else set()
    for name, value in headers:
        if name in _CREDENTIAL_HEADERS:
            if value.startswith(b"Bearer "):
                token = value[7:]
            else:
                scheme = _SCHEME.match(value)
                token = value[scheme.end() :] if scheme else value
            if len(token) >= MIN_KNOWN_BYTES:
                found.add(token)
    if query:
        for match in _SECRET_PARAMETER.finditer(query):
            value = match.group()[len(match.group(1)) :]
            if len(value) >= MIN_KNOWN_BYTES:
                found.add(value)
    return tuple(found)


_CREDENTIAL_HEADERS = frozenset(
    {b"authorization", b"proxy-authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"cookie", b"x-auth-token"}
)
