"""Which dialect's editor edits a whole answer."""

from __future__ import annotations

from collections.abc import Callable

from proxy_core.wire.dialects import Operation
from proxy_core.wire.editing_blocks import BlockEdit, Offers
from proxy_core.wire.editing_chat import edit_chat_answer, edit_ollama_answer
from proxy_core.wire.editing_json import Fields, json_of, open_object, word_of
from proxy_core.wire.editing_messages import edit_messages_answer
from proxy_core.wire.editing_responses import edit_responses_answer

_EDITORS: dict[Operation, Callable[[Fields, Offers], None]] = {
    Operation.CHAT: edit_chat_answer,
    Operation.COMPLETIONS: edit_chat_answer,
    Operation.RESPONSES: edit_responses_answer,
    Operation.MESSAGES: edit_messages_answer,
    Operation.OLLAMA_CHAT: edit_ollama_answer,
    Operation.OLLAMA_GENERATE: edit_ollama_answer,
}


def edit_answer_body(operation: Operation, body: bytes, edit: BlockEdit) -> tuple[bytes, int]:
    """Edit the blocks of an answer that is one JSON body; answers without blocks stay as they are. Raises UnreadableBody."""
    editor = _EDITORS.get(operation)
    if editor is None:
        return body, 0
    fields = open_object(body)
    offers = Offers(edit, word_of(fields, "id"))
    editor(fields, offers)
    return (bytes(json_of(fields)) if offers.changed else body), offers.changed
