"""Chat Completions, legacy completions and embeddings, as OpenAI and everything compatible with it speak them.

Reads what those upstreams add: reasoning under three names, lists as content, usage in odd places, errors inside
streams and 200 bodies. Never raises; what cannot be read is opaque, or `problem` says so.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec

from proxy_core.wire.content_parts import (
    content_blocks,
    function_call_block,
    part_block,
    raw_text,
    thinking_text,
    tool_call_block,
    tool_definitions,
)
from proxy_core.wire.conversation import (
    Answer,
    Block,
    Conversation,
    ImageBlock,
    Message,
    OpaqueBlock,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
    ToolResultBlock,
    Usage,
)
from proxy_core.wire.openai_chat_stream import ChatStreamDecoder, details_text
from proxy_core.wire.reported import other_answer, reported_error
from proxy_core.wire.tolerant_json import (
    as_json_text,
    as_list,
    as_object,
    as_text,
    as_text_or_none,
    encode,
    first_byte,
    plain,
    raw_items,
    read,
)
from proxy_core.wire.usage import at_tier, chat_usage, embeddings_usage


class _Request(msgspec.Struct):
    model: Any = None
    stream: Any = None
    messages: msgspec.Raw = msgspec.Raw()
    tools: msgspec.Raw = msgspec.Raw()
    functions: msgspec.Raw = msgspec.Raw()
    prompt: msgspec.Raw = msgspec.Raw()
    suffix: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()


class _Message(msgspec.Struct):
    role: Any = None
    content: msgspec.Raw = msgspec.Raw()
    refusal: Any = None
    reasoning_content: Any = None
    reasoning: Any = None
    tool_call_id: Any = None
    name: Any = None
    tool_calls: msgspec.Raw = msgspec.Raw()
    function_call: msgspec.Raw = msgspec.Raw()
    audio: msgspec.Raw = msgspec.Raw()


class _Response(msgspec.Struct):
    id: Any = None
    model: Any = None
    choices: Any = None
    usage: Any = None
    error: Any = None
    x_groq: Any = None
    service_tier: Any = None


_request = msgspec.json.Decoder(_Request)
_message = msgspec.json.Decoder(_Message)
_response = msgspec.json.Decoder(_Response)


class ChatCodec:
    """`/v1/chat/completions`."""

    def read_request(self, body: bytes) -> Conversation:
        conversation, problem = read(body, _chat_request)
        return _with_problem(conversation, problem)

    def read_response(self, body: bytes) -> Answer:
        answer, problem = read(body, _chat_response)
        return settled(answer, problem, body, self.stream_decoder)

    def stream_decoder(self) -> ChatStreamDecoder:
        return ChatStreamDecoder()


class CompletionsCodec:
    """Legacy `/v1/completions`: prompts are user messages, each choice is text."""

    def read_request(self, body: bytes) -> Conversation:
        conversation, problem = read(body, _completions_request)
        return _with_problem(conversation, problem)

    def read_response(self, body: bytes) -> Answer:
        answer, problem = read(body, _chat_response)
        return settled(answer, problem, body, self.stream_decoder)

    def stream_decoder(self) -> ChatStreamDecoder:
        return ChatStreamDecoder()


class EmbeddingsCodec:
    """`/v1/embeddings`: the inputs of the request, and of the response the usage alone."""

    def read_request(self, body: bytes) -> Conversation:
        conversation, problem = read(body, _embeddings_request)
        return _with_problem(conversation, problem)

    def read_response(self, body: bytes) -> Answer:
        answer, problem = read(body, _embeddings_response)
        return settled(answer, problem, body, self.stream_decoder)

    def stream_decoder(self) -> ChatStreamDecoder:
        return ChatStreamDecoder()


CODEC = ChatCodec()
COMPLETIONS_CODEC = CompletionsCodec()
EMBEDDINGS_CODEC = EmbeddingsCodec()


def _with_problem(conversation: Conversation | None, problem: str | None) -> Conversation:
    if conversation is None:
        return Conversation(problem=problem or "the body could not be read")
    return conversation if problem is None else msgspec.structs.replace(conversation, problem=problem)


def settled(answer: Answer | None, problem: str | None, body: bytes, decoder: Any) -> Answer:
    """`answer` with its problem; what a body that is no object of its API still says."""
    if answer is not None:
        return answer if problem is None else msgspec.structs.replace(answer, problem=problem)
    if body[:64].lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"data:", b"event:", b":")):
        stream = decoder()
        stream.feed(body.lstrip(b"\xef\xbb\xbf \t\r\n"))
        streamed: Answer = stream.finish()
        return streamed
    return other_answer(body)


def _chat_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    messages = tuple(chat_message(raw) for raw in raw_items(request.messages))
    tools = tool_definitions(request.tools) + tool_definitions(request.functions)
    problem = None if first_byte(request.messages) == b"[" else "the body has no list of messages"
    return Conversation(as_text_or_none(request.model), messages, tools, request.stream is True, problem)


def chat_message(raw: bytes) -> Message:
    """One message of a history. Raises only what `tolerant_json.read` catches."""
    if raw[:1] != b"{":
        return Message("", (OpaqueBlock("message", raw),), raw)
    message = _message.decode(raw)
    role = as_text(message.role)
    if role in ("tool", "function"):
        call_id = as_text(message.tool_call_id) or as_text(message.name)
        return Message(role, (ToolResultBlock(call_id, _result_text(message.content), False, bytes(message.content)),), raw)
    blocks: list[Block] = []
    thinking = as_text(message.reasoning_content) or as_text(message.reasoning)
    if thinking:
        blocks.append(ThinkingBlock(thinking))
    blocks += content_blocks(message.content)
    if isinstance(message.refusal, str) and message.refusal:
        blocks.append(OpaqueBlock("refusal", encode(message.refusal)))
    blocks += [tool_call_block(call) for call in raw_items(message.tool_calls)]
    legacy_call = function_call_block(message.function_call)
    if legacy_call is not None:
        blocks.append(legacy_call)
    if first_byte(message.audio) == b"{":
        blocks.append(OpaqueBlock("audio", bytes(message.audio)))
    return Message(role, tuple(blocks), raw)


def _result_text(content: msgspec.Raw) -> str:
    """A tool result as text: the text parts joined, or the JSON of anything else."""
    if first_byte(content) != b"[":
        return raw_text(content)
    blocks = content_blocks(content)
    if all(isinstance(block, TextBlock) for block in blocks):
        return "".join(block.text for block in blocks if isinstance(block, TextBlock))
    return raw_text(content)


def _completions_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    model, stream = as_text_or_none(request.model), request.stream is True
    if first_byte(request.prompt) in (b"", b"n") and first_byte(request.messages) == b"[":
        return _chat_request(body)
    return Conversation(model, _prompt_messages(request.prompt), (), stream)


def _embeddings_request(body: bytes) -> Conversation:
    request = _request.decode(body)
    return Conversation(as_text_or_none(request.model), _prompt_messages(request.input))


def _prompt_messages(prompt: msgspec.Raw) -> tuple[Message, ...]:
    """A prompt, or a list of prompts; prompts of token numbers are opaque."""
    first = first_byte(prompt)
    raws = raw_items(prompt) if first == b"[" else [bytes(prompt)]
    if first == b"[" and raws and raws[0][:1].isdigit():
        raws = [bytes(prompt)]
    messages: list[Message] = []
    for raw in raws:
        if raw[:1] == b'"':
            messages.append(Message("user", (TextBlock(as_text(plain(raw)), raw),), raw))
        elif raw and raw != b"null":
            messages.append(
                Message("user", (part_block(plain(raw), raw) if raw[:1] == b"{" else OpaqueBlock("tokens", raw),), raw)
            )
    return tuple(messages)


_Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)] | None


class _PlainMessage(msgspec.Struct):
    """A message of nothing but text: anything else in it fails to decode, and is read the long way."""

    content: str
    refusal: None = None
    tool_calls: None = None
    function_call: None = None
    reasoning_content: None = None
    reasoning: None = None
    reasoning_details: None = None
    audio: None = None
    images: None = None


class _PlainChoice(msgspec.Struct):
    message: _PlainMessage
    finish_reason: str | None = None


class _PlainDetails(msgspec.Struct):
    cached_tokens: _Count = None
    cache_write_tokens: None = None
    reasoning_tokens: _Count = None
    audio_tokens: Annotated[int, msgspec.Meta(ge=0, le=0)] | None = None


class _PlainUsage(msgspec.Struct):
    prompt_tokens: _Count = None
    completion_tokens: _Count = None
    total_tokens: _Count = None
    prompt_tokens_details: _PlainDetails | None = None
    completion_tokens_details: _PlainDetails | None = None
    prompt_cache_hit_tokens: None = None
    cached_tokens: None = None
    num_cached_tokens: None = None
    cache_read_input_tokens: None = None
    cache_creation_input_tokens: None = None


class _PlainResponse(msgspec.Struct):
    choices: list[_PlainChoice]
    usage: _PlainUsage
    id: str | None = None
    model: str | None = None
    error: None = None
    service_tier: Literal["default", "auto", "on_demand"] | None = None


_plain_response = msgspec.json.Decoder(_PlainResponse)


def _text_response(body: bytes) -> Answer | None:
    """The answer in a body of the most usual form, one choice of plain text; None for every other."""
    try:
        response = _plain_response.decode(body)
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return None
    if len(response.choices) != 1:
        return None
    choice, usage = response.choices[0], response.usage
    prompt, completion = usage.prompt_tokens_details, usage.completion_tokens_details
    reasoning = completion.reasoning_tokens if completion is not None else None
    if usage.prompt_tokens is None or usage.completion_tokens is None or reasoning:
        return None
    counts = Usage(
        usage.prompt_tokens, usage.completion_tokens, prompt.cached_tokens if prompt is not None else None, None, reasoning
    )
    content = choice.message.content
    blocks = (TextBlock(content),) if content else ()
    return Answer(blocks, counts, choice.finish_reason, None, response.model, response.id, True, None)


def _chat_response(body: bytes) -> Answer | None:
    plain_answer = _text_response(body)
    if plain_answer is not None:
        return plain_answer
    response = _response.decode(body)
    choices = response.choices
    if type(choices) is not list:
        return _without_choices(body, response)
    blocks: list[Block] = []
    stop_reason: str | None = None
    for choice in choices:
        fields = as_object(choice)
        message = fields.get("message")
        if isinstance(message, dict):
            _answer_blocks(message, blocks)
        elif isinstance(fields.get("text"), str):
            blocks.append(TextBlock(fields["text"]))
        elif choice is not None:
            blocks.append(OpaqueBlock("choice", encode(choice)))
        if stop_reason is None:
            stop_reason = as_text_or_none(fields.get("finish_reason"))
    usage = chat_usage(response.usage)
    if usage is None and response.x_groq is not None:
        usage = chat_usage(as_object(response.x_groq).get("usage"))
    usage = at_tier(usage, response.service_tier)
    error = reported_error({"error": response.error}) if response.error else None
    return Answer(
        tuple(blocks), usage, stop_reason, error, as_text_or_none(response.model), as_text_or_none(response.id), True, None
    )


def _without_choices(body: bytes, response: _Response) -> Answer | None:
    """A body without choices is an error, or not of this API."""
    error = reported_error(plain(body))
    if error is None:
        return Answer(
            usage=chat_usage(response.usage),
            model=as_text_or_none(response.model),
            response_id=as_text_or_none(response.id),
            problem="the body has no list of choices",
        )
    return Answer(usage=chat_usage(response.usage), error=error, model=as_text_or_none(response.model))


def _answer_blocks(message: dict[str, Any], blocks: list[Block]) -> None:
    """The blocks of one choice's message."""
    thinking = thinking_text(message.get("reasoning_content")) or thinking_text(message.get("reasoning"))
    details = message.get("reasoning_details")
    if thinking or details:
        text, signature = details_text(details)
        if thinking or text or signature:
            blocks.append(ThinkingBlock(thinking or text, signature))
    content = message.get("content")
    if type(content) is str:
        if content:
            blocks.append(TextBlock(content))
    elif type(content) is list:
        blocks += [part_block(part, encode(part)) for part in content]
    elif content is not None:
        blocks.append(OpaqueBlock("content", encode(content)))
    refusal = message.get("refusal")
    if refusal:
        blocks.append(OpaqueBlock("refusal", encode(refusal)))
    for call in as_list(message.get("tool_calls")):
        blocks.append(plain_tool_call(call))
    legacy_call = message.get("function_call")
    if isinstance(legacy_call, dict):
        name, arguments = as_text(legacy_call.get("name")), as_json_text(legacy_call.get("arguments"))
        blocks.append(ToolCallBlock("", name, arguments))
    if message.get("audio"):
        blocks.append(OpaqueBlock("audio", encode(message["audio"])))
    for image in as_list(message.get("images")):
        raw = encode(image)
        block = part_block(image, raw)
        blocks.append(block if isinstance(block, ImageBlock) else OpaqueBlock("image", raw))


def plain_tool_call(call: Any) -> Block:
    """One item of `tool_calls` that was decoded already."""
    fields = as_object(call)
    function = fields.get("function")
    if isinstance(function, dict):
        arguments = as_json_text(function.get("arguments"))
        return ToolCallBlock(as_text(fields.get("id")), as_text(function.get("name")), arguments)
    custom = fields.get("custom")
    if isinstance(custom, dict):
        return ToolCallBlock(as_text(fields.get("id")), as_text(custom.get("name")), as_json_text(custom.get("input")))
    return OpaqueBlock(as_text(fields.get("type")) or "tool call", encode(call))


def _embeddings_response(body: bytes) -> Answer | None:
    response = _response.decode(body)
    usage = embeddings_usage(response.usage)
    error = reported_error({"error": response.error}) if response.error else None
    if error is None and usage is None and response.model is None:
        error = reported_error(plain(body))
    return Answer(usage=usage, error=error, model=as_text_or_none(response.model), response_id=as_text_or_none(response.id))
