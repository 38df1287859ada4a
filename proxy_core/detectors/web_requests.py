# ruff: noqa: SIM905 - words as a list for people
"""Requests to the network in what a tool call would do: tools that fetch, programs such as curl, and code.

`web_request` gives what it finds in one tool call, with a score from 0 to 1: 0.9 where something is sent out, 0.7 where
something is fetched, below 0.5 for this machine itself and for what only resolves a name. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from proxy_core.detectors.commands import UNREADABLE, Finding, read_command, reading_of, tool_words
from proxy_core.detectors.shell_runs import Run
from proxy_core.detectors.tool_arguments import plain_letters, read_arguments

_TOOL = re.compile(
    r"fetch|brows|navigate|http|(?:^|_)url|curl|wget|download|scrape|crawl|web_?(?:search|request|page|view)|webpage|open_link"
    r"|(?:^|_)request(?:$|_)|internet|upload"
)
_URL_KEYS = frozenset(
    {"url", "urls", "uri", "link", "links", "href", "endpoint", "website", "page", "webhook", "target_url", "address"}
)
_URL = re.compile(r"(?i)\b(?:https?|ftp|ftps|wss?|sftp|gopher)://[^\s\"'<>`]{1,2000}")
_HOST = re.compile(r"(?i)^(?:[a-z][a-z0-9+.-]*://)?(?:[^/@\s]*@)?(\[[^\]]*\]|[^/:?#\s]*)")
_LOCAL = re.compile(
    r"(?i)^(?:localhost|(?:[\w-]+\.)*localhost|127(?:\.\d+){3}|0\.0\.0\.0|\[?::1\]?|host\.docker\.internal|[\w-]+\.local)$"
)
_LOOKS_REMOTE = re.compile(r"(?i)^(?:www\.)?[\w-]+(?:\.[\w-]+)*\.[a-z]{2,24}(?:[:/?#]|$)")
_FETCHERS = frozenset(
    "curl wget wget2 http https xh curlie aria2c lynx w3m links elinks axel fetch httpie telnet ftp lftp tftp ncftp irm iwr "
    "invoke-webrequest invoke-restmethod start-bitstransfer certutil bitsadmin youtube-dl yt-dlp websocat grpcurl hey ab wrk "
    "ngrok cloudflared gsutil".split()
)
_SENDERS = re.compile(
    r"(?:^|\s)(?:-d|--data\S*|-F|--form\S*|-T|--upload-file|--post-data|--post-file|--body-\w+|-X\s?(?:POST|PUT|PATCH|DELETE)"
    r"|--request[= ](?:POST|PUT|PATCH|DELETE)|--method[= ](?:POST|PUT|PATCH)|--json)(?:[= @\S]|$)"
)
_CODE = re.compile(
    r"\brequests\.(?:get|post|put|patch|delete|head|request|Session)\b|\burllib3?\.|\burlopen\s*\(|\burlretrieve\b|\bhttpx\.|\baiohttp\."
    r"|\bhttp\.client\b|\bHTTPS?Connection\b|\bsocket\.(?:create_connection|socket)\b|\bfetch\s*\(\s*[\"'`]|\baxios\b|\bXMLHttpRequest\b"
    r"|\bnew\s+WebSocket\b|\bNet::HTTP\b|\bLWP::|\bfile_get_contents\s*\(\s*[\"']https?:|\bcurl_(?:init|exec)\b|\bsmtplib\.|\bftplib\."
    r"|\bparamiko\.|\bhttps?\.(?:get|request)\s*\(|\bhttp\.Get\s*\(|\bweb3\b|\bgit\.Repo\.clone_from\b"
)
_CODE_SENDS = re.compile(
    r"\.(?:post|put|patch)\s*\(|\bmethod\s*[:=]\s*[\"'](?:POST|PUT|PATCH)|\.send(?:all)?\s*\(|\bdata\s*=|\bsmtplib\."
)


def web_request(name: str, arguments: str) -> list[Finding]:
    """What a call of the tool `name` would ask of the network. `text` of a finding is the program or the address."""
    found: list[Finding] = []
    read = read_arguments(arguments)
    words = tool_words(name)
    is_web_tool = bool(_TOOL.search(words))
    if read.problem is not None and is_web_tool:
        found.append(Finding("unreadable", UNREADABLE, (0, len(arguments)), read.problem))
    addresses = list(_addresses(read.value))
    if is_web_tool and not addresses:
        found.append(Finding("web_tool", 0.6, (0, 0), name[:200]))
    for address in addresses:
        sends = is_web_tool and re.search(r"post|upload|send|submit|webhook", words)
        score = 0.2 if is_local(address) else 0.9 if sends else 0.7
        found.append(Finding("web_tool", score, (0, len(address)), address[:1_000]))
    for command in read_command(name, arguments).commands:
        reading = reading_of(command)
        if reading.problem is not None:
            found.append(Finding("unreadable", UNREADABLE, (0, len(command.text)), reading.problem))
        for run in reading.runs:
            found += [Finding(rule, score, run.span, f"{run.name} {run.line}".strip()[:1_000]) for rule, score in _asks(run)]
        for code in reading.codes:
            match = _CODE.search(code.text)
            if match:
                local = _only_local(_URL.findall(code.text))
                score = 0.2 if local else 0.9 if _CODE_SENDS.search(code.text) else 0.7
                found.append(Finding("web_code", score, code.span, match.group()[:200]))
    return found


def is_local(address: str) -> bool:
    """Whether a URL or host name means this machine."""
    host = _HOST.match(plain_letters(address).strip())
    return bool(host and _LOCAL.match(host[1]))


def _only_local(addresses: list[str]) -> bool:
    return bool(addresses) and all(is_local(address) for address in addresses)


def _addresses(value: Any, depth: int = 0) -> Iterator[str]:
    """Addresses under the keys that usually hold one."""
    if depth > 4:
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if tool_words(key) in _URL_KEYS:
                items = inner if isinstance(inner, list) else [inner]
                yield from (item for item in items if isinstance(item, str) and (_URL.match(item) or _LOOKS_REMOTE.match(item)))
            else:
                yield from _addresses(inner, depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _addresses(inner, depth + 1)


def _asks(run: Run) -> Iterator[tuple[str, float]]:
    """What one program asks of the network."""
    name, line = run.name.lower(), run.line[:20_000]
    if any(redirect.target.startswith(("/dev/tcp/", "/dev/udp/")) for redirect in run.redirects):
        yield "raw_socket", 0.9
    if "--help" in run.arguments or "--version" in run.arguments:
        return
    if name in _FETCHERS:
        targets = [word for word in run.arguments if not word.startswith("-")]
        known = [word for word in targets if _URL.match(word) or is_local(word)]
        if targets:
            yield "web_program", 0.2 if _only_local(known) else 0.9 if _SENDERS.search(line) else 0.7
    elif name in ("nc", "ncat", "netcat", "socat"):
        local = any(is_local(word) for word in run.arguments) or re.search(r"(?i)tcp:(?:localhost|127\.)", line)
        yield "raw_socket", 0.3 if local else 0.9
    elif name == "openssl" and "s_client" in run.arguments:
        yield "raw_socket", 0.7
    elif name in ("ssh", "sftp", "scp", "rsync", "ftp"):
        if name in ("ssh", "sftp") or re.search(r"(?:^|\s)(?:[\w.-]+@)?[\w.-]{2,}:(?!\\)\S*", line):
            yield "remote_copy", 0.8
    elif name in ("dig", "nslookup", "host", "drill"):
        yield "name_lookup", 0.5 if "$(" in line or len(line) > 120 else 0.3
    elif name == "git" and re.match(r"(?:-\S+\s+)*(?:push|send-email)\b", line):
        yield "git_push", 0.4
    elif name in ("mail", "mailx", "sendmail", "mutt", "swaks"):
        yield "mail", 0.8
    elif name == "aws" and re.search(r"\bs3\s+(?:cp|sync|mv)\b", line):
        yield "web_program", 0.8
