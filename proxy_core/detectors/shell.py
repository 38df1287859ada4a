"""Reads shell text the way a shell would, as far as it can be known without running it: quotes, escapes, pipes, lists,
redirections, here-documents, substitutions, and variables that the text itself sets.

`parse` gives every simple command, those inside substitutions too. It never raises and never runs anything. Time is linear
in the length of the text but for the nesting, which is bounded; what is too long or too deep is named in `problem`.
"""

from __future__ import annotations

import base64
import binascii
import re

import msgspec
from msgspec import Struct

MAX_CHARS = 400_000
MAX_DEPTH = 10
_MAX_EXPANDED = 64
"""Words that one brace expression may become."""
_MAX_VALUE_CHARS = 20_000


class Redirect(Struct, frozen=True):
    """One redirection: `>`, `>>`, `<`, `&>`, … and what it names."""

    operator: str
    target: str


class Command(Struct, frozen=True):
    """One simple command, words without their quotes."""

    words: tuple[str, ...]
    redirects: tuple[Redirect, ...] = ()
    stdin: str | None = None
    """The text of a here-document or here-string."""
    assigned: tuple[tuple[str, str], ...] = ()
    """Variables set in front of the command."""
    span: tuple[int, int] = (0, 0)
    """Where it stands in the outermost text, in characters."""


class Script(Struct, frozen=True):
    """What was read of one text."""

    pipelines: tuple[tuple[Command, ...], ...]
    """Each in order; the commands of a pipeline feed one another."""
    problem: str | None = None


def parse(text: str) -> Script:
    """All commands of a shell text."""
    if len(text) > MAX_CHARS:
        return Script((), "the command is too long to be read")
    reader = _Reader(text, 0, {}, None)
    reader.read()
    return Script(tuple(tuple(pipeline) for pipeline in reader.pipelines), reader.problem)


_PLAIN = re.compile(r"[^\s;&|()<>'\"\\$`]+")
_IN_QUOTES = re.compile(r"[^\"\\$`]+")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\+?=(.*)", re.DOTALL)
_BRACES = re.compile(r"\{([^{}]*,[^{}]*)\}")
_ESCAPE = re.compile(r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-7]{1,3})|(.))", re.DOTALL)
_LETTERS = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "e": "\x1b", "f": "\f", "v": "\v"}
_SPLIT = "\x00"
"""Marks, inside a word that is being read, where an unquoted expansion parts it."""
_KEYWORDS = frozenset({"then", "do", "else", "elif", "if", "while", "until", "!", "{", "}", "fi", "done", "esac", "in", "coproc"})
_DECLARATIONS = frozenset({"export", "local", "declare", "readonly", "typeset"})


class _Reader:
    """Reads one text; substitutions inside it get a reader of their own that shares the variables."""

    def __init__(self, text: str, depth: int, variables: dict[str, str], outer_span: tuple[int, int] | None) -> None:
        self.pipelines: list[list[Command]] = []
        self.problem: str | None = None
        self._text = text
        self._depth = depth
        self._variables = variables
        self._outer_span = outer_span
        self._at = 0
        self._pieces: list[str] = []
        self._in_word = False
        self._quoted = False
        self._words: list[str] = []
        self._redirects: list[Redirect] = []
        self._pending: str | None = None
        """The operator whose target comes next."""
        self._stdin: str | None = None
        self._named: list[tuple[str, bool]] = []
        """Here-documents of the command that is being read: the word that closes it, and whether tabs may precede it."""
        self._heredocs: list[tuple[str, bool, list[Command], int]] = []
        """Here-documents of this line, with the pipeline and the number of the command that reads them."""
        self._pipeline: list[Command] = []
        self._pipe_open = False
        """Whether the last thing read was a pipe: then the command after it may stand on the next line."""
        self._begun = 0

    def read(self) -> None:
        text, end = self._text, len(self._text)
        while self._at < end:
            letter = text[self._at]
            if letter in " \t\r\f\v\u00a0":
                self._end_word()
                self._at += 1
            elif letter == "\n":
                self._end_command(piped=False)
                self._at += 1
                self._read_heredocs()
            elif letter == "#" and not self._in_word:
                line_break = text.find("\n", self._at)
                self._at = end if line_break < 0 else line_break
            elif letter in ";&|()":
                self._read_operator(letter)
            elif letter in "<>":
                self._read_redirect(letter)
            else:
                self._read_piece(letter)
        self._end_command(piped=False)
        self._pipe_open = False
        self._end_command(piped=False)
        self._read_heredocs()

    def _read_operator(self, letter: str) -> None:
        text, at = self._text, self._at
        following = text[at + 1 : at + 2]
        if letter == "&" and following == ">":
            self._end_word()
            self._pending = "&>"
            self._at += 3 if text[at + 2 : at + 3] == ">" else 2
            return
        if letter == "(" and self._in_word and following == ")":
            if _NAME.fullmatch("".join(self._pieces)):
                self._pieces, self._in_word = [], False
            else:
                self._pieces.append("()")
            self._at += 2
            return
        self._at += 1
        piped = letter == "|" and following != "|"
        if (following == letter and letter in "&|;") or (letter == "|" and following == "&"):
            self._at += 1
        self._end_command(piped=piped)

    def _read_redirect(self, letter: str) -> None:
        text, at = self._text, self._at
        if text[at + 1 : at + 2] == "(":
            self._begin_word()
            self._at = at + 1
            self._pieces.append(letter + self._nested())
            return
        if self._in_word and not self._quoted and "".join(self._pieces).isdigit():
            self._pieces, self._in_word = [], False
        self._end_word()
        for operator in ("<<<", "<<-", "<<", "<>", "<&", "<", ">>", ">|", ">&", ">"):
            if text.startswith(operator, at):
                self._pending = operator
                self._at += len(operator)
                return

    def _read_piece(self, letter: str) -> None:
        text, at = self._text, self._at
        self._begin_word()
        if letter == "'":
            close = text.find("'", at + 1)
            close = len(text) if close < 0 else close
            self._pieces.append(text[at + 1 : close])
            self._quoted = True
            self._at = close + 1
        elif letter == '"':
            self._read_quotes()
        elif letter == "\\":
            if text[at + 1 : at + 2] != "\n":
                self._pieces.append(text[at + 1 : at + 2])
            self._at += 2
        elif letter == "`":
            self._pieces.append(self._backticks())
        elif letter == "$":
            value = self._expansion(quoted=False)
            self._pieces.append(re.sub(r"[ \t\n]+", _SPLIT, value) if not value.startswith("$(") else value)
        else:
            plain = _PLAIN.match(text, at)
            piece = plain.group() if plain else letter
            self._pieces.append(piece)
            self._at += len(piece)

    def _read_quotes(self) -> None:
        text, end = self._text, len(self._text)
        self._quoted = True
        self._at += 1
        while self._at < end:
            letter = text[self._at]
            if letter == '"':
                self._at += 1
                return
            if letter == "\\":
                following = text[self._at + 1 : self._at + 2]
                self._pieces.append("" if following == "\n" else following if following in '"\\$`' else "\\" + following)
                self._at += 2
            elif letter == "$":
                self._pieces.append(self._expansion(quoted=True))
            elif letter == "`":
                self._pieces.append(self._backticks())
            else:
                run = _IN_QUOTES.match(text, self._at)
                piece = run.group() if run else letter
                self._pieces.append(piece)
                self._at += len(piece)

    def _expansion(self, *, quoted: bool) -> str:
        """What stands for a `$…`, as far as the text says it."""
        text, at = self._text, self._at
        following = text[at + 1 : at + 2]
        if following == "(":
            self._at = at + 1
            return self._nested()
        if following == "'" and not quoted:
            return self._ansi_quotes()
        if following == '"' and not quoted:
            self._at += 1
            return ""
        if following == "{":
            close = text.find("}", at)
            close = len(text) if close < 0 else close
            self._at = close + 1
            return self._parameter(text[at + 2 : close], text[at : close + 1])
        name = _NAME.match(text, at + 1)
        if name is None:
            special = following if following and following in "@*#?!-$0123456789" else ""
            self._at = at + 1 + len(special)
            return self._variables.get(special, "$" + special)
        self._at = name.end()
        return self._parameter(name.group(), "$" + name.group())

    def _parameter(self, expression: str, literal: str) -> str:
        name = _NAME.match(expression.lstrip("!#"))
        if name is None:
            return literal
        if name.group() == "IFS":
            return " "
        value = self._variables.get(name.group())
        if value is not None:
            return value
        rest = expression[name.end() :]
        if rest[:2] in (":-", ":="):
            return f"${name.group()}" if name.group() in ("HOME", "TMPDIR") else rest[2:]
        return "$" + name.group()

    def _ansi_quotes(self) -> str:
        """`$'…'` with its escapes."""
        text = self._text
        at = self._at + 2
        while at < len(text) and text[at] != "'":
            at += 2 if text[at] == "\\" else 1
        inner = text[self._at + 2 : at]
        self._quoted = True
        self._at = at + 1
        return unescaped(inner)

    def _backticks(self) -> str:
        text = self._text
        at = self._at + 1
        while at < len(text) and text[at] != "`":
            at += 2 if text[at] == "\\" else 1
        inner = text[self._at + 1 : at].replace("\\`", "`")
        begun = self._at
        self._at = at + 1
        return self._substituted(inner, begun)

    def _nested(self) -> str:
        """A substitution whose `(` stands here."""
        begun = self._at
        close = _matching(self._text, begun)
        self._at = close + 1
        return self._substituted(self._text[begun + 1 : close], begun)

    def _substituted(self, inner: str, begun: int) -> str:
        """Read the commands of a substitution; its output where that is plain to see, else a mark."""
        if self._depth >= MAX_DEPTH:
            self.problem = "the command is nested too deeply"
            return "$(…)"
        span = self._outer_span or (begun, self._at)
        reader = _Reader(inner, self._depth + 1, self._variables, span)
        reader.read()
        self.pipelines += reader.pipelines
        self.problem = self.problem or reader.problem
        if len(reader.pipelines) == 1:
            output = output_of(reader.pipelines[0])
            if output is not None:
                return output
        return "$(" + inner[:200].replace("\n", " ") + ")"

    def _begin_word(self) -> None:
        if not self._in_word:
            self._in_word = True
            self._quoted = False
            if not self._words and not self._redirects and self._pending is None:
                self._begun = self._at

    def _end_word(self) -> None:
        if not self._in_word:
            return
        word, quoted = "".join(self._pieces), self._quoted
        self._pieces, self._in_word = [], False
        if self._pending is not None:
            self._redirect(self._pending, word.replace(_SPLIT, " "))
            self._pending = None
            return
        words = [piece for piece in word.split(_SPLIT) if piece] if _SPLIT in word else [word]
        for one in words:
            if not quoted and "{" in one and _BRACES.search(one):
                self._words += _expanded(one)
            elif not self._words and not quoted and one in _KEYWORDS:
                continue
            else:
                self._words.append(one)

    def _redirect(self, operator: str, target: str) -> None:
        if operator in ("<<", "<<-"):
            self._named.append((target, operator == "<<-"))
        elif operator == "<<<":
            self._stdin = target
        elif not (operator in (">&", "<&") and (target.isdigit() or target == "-")):
            self._redirects.append(Redirect(operator, target))

    def _end_command(self, *, piped: bool) -> None:
        self._end_word()
        self._pending = None
        words = self._words
        assigned: list[tuple[str, str]] = []
        while words and (found := _ASSIGNMENT.fullmatch(words[0])):
            assigned.append((found[1], found[2]))
            words = words[1:]
        if words and words[0] in _DECLARATIONS:
            assigned += [(found[1], found[2]) for word in words[1:] if (found := _ASSIGNMENT.fullmatch(word))]
        elif len(words) > 3 and words[0] == "for" and words[2] == "in":
            assigned.append((words[1], " ".join(words[3:])))
        elif len(words) > 2 and words[0] == "set" and words[1] == "--":
            assigned += [("@", " ".join(words[2:])), ("*", " ".join(words[2:]))]
        for name, value in assigned:
            if len(value) <= _MAX_VALUE_CHARS:
                self._variables[name] = value
        if words or self._redirects or self._stdin is not None or self._named:
            span = self._outer_span or (self._begun, self._at)
            command = Command(tuple(words), tuple(self._redirects), self._stdin, tuple(assigned), span)
            self._pipeline.append(command)
            self._pipe_open = False
            self._heredocs += [(*named, self._pipeline, len(self._pipeline) - 1) for named in self._named]
        self._words, self._redirects, self._stdin, self._named = [], [], None, []
        self._pipe_open = self._pipe_open or piped
        if not self._pipe_open and self._pipeline:
            self.pipelines.append(self._pipeline)
            self._pipeline = []

    def _read_heredocs(self) -> None:
        """The bodies of here-documents stand after the line that names them."""
        text = self._text
        for word, tabs, pipeline, number in self._heredocs:
            body_begun = self._at
            indent = "\t*" if tabs else ""
            closing = re.compile(rf"^{indent}{re.escape(word)}[ \t\r]*$", re.MULTILINE).search(text, body_begun)
            body_end = closing.start() if closing else len(text)
            self._at = min(len(text), closing.end() + 1) if closing else len(text)
            pipeline[number] = msgspec.structs.replace(pipeline[number], stdin=text[body_begun:body_end])
        self._heredocs = []


def _matching(text: str, begun: int) -> int:
    """Where the parenthesis that opens at `begun` closes; the end of the text where it does not."""
    depth = 0
    at = begun
    while at < len(text):
        found = _BRACKET.search(text, at)
        if found is None:
            return len(text)
        at = found.end()
        mark = found.group()
        if mark == "(":
            depth += 1
        elif mark == ")":
            depth -= 1
            if depth == 0:
                return at - 1
        elif mark == "\\":
            at += 1
        elif mark == "'":
            close = text.find("'", at)
            at = len(text) if close < 0 else close + 1
    return len(text)


_BRACKET = re.compile(r"[()\\']|\"(?:[^\"\\]|\\.)*+\"", re.DOTALL)


def _expanded(word: str) -> list[str]:
    """`{a,b}` and `x{a,b}y` as the words they become."""
    words = [word]
    while len(words) < _MAX_EXPANDED:
        number = next((number for number, one in enumerate(words) if _BRACES.search(one)), None)
        if number is None:
            break
        found = _BRACES.search(words[number])
        if found is None:
            break
        before, after = words[number][: found.start()], words[number][found.end() :]
        words[number : number + 1] = [before + choice + after for choice in found[1].split(",")]
    return [one for one in words if one]


def unescaped(text: str) -> str:
    """Text with `\\x72`, `\\162` and the like as the letters that they stand for."""

    def letter(found: re.Match[str]) -> str:
        hexadecimal = found[1] or found[2] or found[3]
        if hexadecimal:
            number = int(hexadecimal, 16)
            return chr(number) if number < 0x110000 else ""
        if found[4]:
            return chr(int(found[4], 8))
        return _LETTERS.get(found[5], found[5])

    return _ESCAPE.sub(letter, text) if "\\" in text else text


_DECODERS = frozenset({"base64", "base32", "xxd", "rev", "tr", "openssl", "gunzip", "zcat", "uudecode"})


def is_decoder(command: Command) -> bool:
    """Whether a command turns something unreadable into something that can be run."""
    if not command.words:
        return False
    name = command.words[0].rsplit("/", 1)[-1]
    if name not in _DECODERS:
        return False
    return name in ("rev", "tr", "gunzip", "zcat", "uudecode") or any(
        word in ("-d", "-D", "--decode", "-r", "enc", "-di") or word.startswith("-rp") for word in command.words[1:]
    )


def output_of(pipeline: list[Command] | tuple[Command, ...]) -> str | None:
    """What a pipeline of `echo` or `printf`, and of well-known decoders, prints; None where that cannot be known."""
    if not pipeline or not pipeline[0].words:
        return None
    name, words = pipeline[0].words[0].rsplit("/", 1)[-1], list(pipeline[0].words[1:])
    if name == "echo":
        escapes = False
        while words and re.fullmatch(r"-[neE]+", words[0]):
            escapes = escapes or "e" in words[0]
            words = words[1:]
        text = " ".join(words)
        text = unescaped(text) if escapes else text
    elif name == "printf" and words:
        pattern = unescaped(words[0])
        text = "".join(words[1:]) if re.fullmatch(r"(?:%s|%b)+\n?", pattern) else pattern
        text = unescaped(text) if "%b" in words[0] else text
    elif name == "cat" and pipeline[0].stdin is not None and not words:
        text = pipeline[0].stdin
    else:
        return None
    for command in pipeline[1:]:
        decoded = _decoded(command, text)
        if decoded is None:
            return None
        text = decoded
    return text.rstrip("\n")


def _decoded(command: Command, text: str) -> str | None:
    """`text` after a decoder; None where the command is another one."""
    if not is_decoder(command):
        return None
    name = command.words[0].rsplit("/", 1)[-1]
    try:
        if name == "rev":
            return "\n".join(line[::-1] for line in text.split("\n"))
        if name == "base64" or (name == "openssl" and "base64" in command.words):
            return base64.b64decode("".join(text.split()) + "===", validate=False).decode("utf-8", "replace")
        if name == "base32":
            return base64.b32decode("".join(text.split())).decode("utf-8", "replace")
        if name == "xxd":
            return bytes.fromhex("".join(text.split())).decode("utf-8", "replace")
    except (binascii.Error, ValueError):
        return None
    return None
