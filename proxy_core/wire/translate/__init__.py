"""Translation between the dialects of chat: Chat Completions, Messages and Ollama's chat, in all six directions.

Requests, whole answers, errors and streams. What the other dialect cannot say is named, never left out in silence; nothing but
UnreadableBody is raised.
"""

from proxy_core.wire.editing_json import UnreadableBody
from proxy_core.wire.translate.answers import translate_response
from proxy_core.wire.translate.requests import Translated, can_translate, translate_request
from proxy_core.wire.translate.streams import StreamTranslator

__all__ = ["StreamTranslator", "Translated", "UnreadableBody", "can_translate", "translate_request", "translate_response"]
