"""Streams written for the tests, one for each dialect, and ways to cut them."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import strategies as st

CHAT = (
    b': waiting\n\ndata: {"id":"chat-1","model":"m-1","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    b'data: {"id":"chat-1","choices":[{"index":0,"delta":{"reasoning_content":"let me see"}}]}\n\n'
    b'data: {"id":"chat-1","choices":[{"index":0,"delta":{"content":"Gr\xc3\xbc\xc3\x9fe \xf0\x9f\x98\x80 data: [DONE]"}}]}\n\n'
    b'data: {"id":"chat-1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_a","type":"function",'
    b'"function":{"name":"weather","arguments":""}}]}}]}\n\n'
    b'data: {"id":"chat-1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,'
    b'"function":{"arguments":"{\\"city\\""}}]}}]}\n\n'
    b'data: {"id":"chat-1","choices":[{"index":0,"delta":{"tool_calls":[{"index":1,"id":"call_b","type":"function",'
    b'"function":{"name":"clock","arguments":"{}"}}]}}]}\n\n'
    b'data: {"id":"chat-1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,'
    b'"function":{"arguments":":\\"Bonn\\"}"}}]}}]}\n\n'
    b'data: {"id":"chat-1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}\n\n'
    b'data: {"id":"chat-1","choices":[],"usage":{"prompt_tokens":20,"completion_tokens":9,"total_tokens":29,'
    b'"prompt_tokens_details":{"cached_tokens":4},"completion_tokens_details":{"reasoning_tokens":3}}}\n\n'
    b"data: [DONE]\n\n"
)

MESSAGES = (
    b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant",'
    b'"model":"c-1","content":[],"usage":{"input_tokens":7,"cache_read_input_tokens":100,"cache_creation_input_tokens":20,'
    b'"output_tokens":1}}}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":0,"content_block":{"type":"thinking",'
    b'"thinking":"","signature":""}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta",'
    b'"thinking":"hm"}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta",'
    b'"signature":"c2ln+/="}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":0}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta",'
    b'"text":"event: message_stop \\"type\\":\\"message_stop\\""}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":1}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use",'
    b'"id":"toolu_1","name":"read_file","input":{}}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta",'
    b'"partial_json":"{\\"path\\": "}}\n\n'
    b'event: content_block_delta\ndata: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta",'
    b'"partial_json":"\\"a.txt\\"}"}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":2}\n\n'
    b'event: content_block_start\ndata: {"type":"content_block_start","index":3,"content_block":{"type":"tool_use",'
    b'"id":"toolu_2","name":"now","input":{}}}\n\n'
    b'event: content_block_stop\ndata: {"type":"content_block_stop","index":3}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},'
    b'"usage":{"output_tokens":42}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)

RESPONSES = (
    b'event: response.created\ndata: {"type":"response.created","response":{"id":"resp_1","model":"r-1","object":"response",'
    b'"status":"in_progress","output":[]}}\n\n'
    b'event: response.output_item.added\ndata: {"type":"response.output_item.added","output_index":0,"item":{"id":"rs_1",'
    b'"type":"reasoning","summary":[]}}\n\n'
    b'event: response.reasoning_summary_text.delta\ndata: {"type":"response.reasoning_summary_text.delta","output_index":0,'
    b'"delta":"plan"}\n\n'
    b'event: response.output_item.done\ndata: {"type":"response.output_item.done","output_index":0,"item":{"id":"rs_1",'
    b'"type":"reasoning","encrypted_content":"Zm9v","summary":[{"type":"summary_text","text":"plan"}]}}\n\n'
    b'event: response.output_item.added\ndata: {"type":"response.output_item.added","output_index":1,"item":{"id":"msg_1",'
    b'"type":"message","role":"assistant","content":[]}}\n\n'
    b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta","output_index":1,"content_index":0,'
    b'"delta":"event: response.completed"}\n\n'
    b'event: response.output_item.done\ndata: {"type":"response.output_item.done","output_index":1,"item":{"id":"msg_1",'
    b'"type":"message","role":"assistant","content":[{"type":"output_text","text":"event: response.completed"}]}}\n\n'
    b'event: response.output_item.added\ndata: {"type":"response.output_item.added","output_index":2,"item":{"id":"fc_1",'
    b'"type":"function_call","call_id":"call_1","name":"shell","arguments":""}}\n\n'
    b'event: response.function_call_arguments.delta\ndata: {"type":"response.function_call_arguments.delta","output_index":2,'
    b'"delta":"{\\"cmd\\":"}\n\n'
    b'event: response.function_call_arguments.delta\ndata: {"type":"response.function_call_arguments.delta","output_index":2,'
    b'"delta":"\\"ls\\"}"}\n\n'
    b'event: response.function_call_arguments.done\ndata: {"type":"response.function_call_arguments.done","output_index":2,'
    b'"arguments":"{\\"cmd\\":\\"ls\\"}"}\n\n'
    b'event: response.output_item.done\ndata: {"type":"response.output_item.done","output_index":2,"item":{"id":"fc_1",'
    b'"type":"function_call","call_id":"call_1","name":"shell","arguments":"{\\"cmd\\":\\"ls\\"}"}}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"id":"resp_1","model":"r-1","object":"response",'
    b'"status":"completed","output":[{"id":"rs_1","type":"reasoning","encrypted_content":"Zm9v",'
    b'"summary":[{"type":"summary_text","text":"plan"}]},{"id":"msg_1","type":"message","role":"assistant",'
    b'"content":[{"type":"output_text","text":"event: response.completed"}]},{"id":"fc_1","type":"function_call",'
    b'"call_id":"call_1","name":"shell","arguments":"{\\"cmd\\":\\"ls\\"}"}],"usage":{"input_tokens":50,'
    b'"input_tokens_details":{"cached_tokens":10},"output_tokens":30,"output_tokens_details":{"reasoning_tokens":12}}}}\n\n'
)

OLLAMA = (
    b'{"model":"o-1","message":{"role":"assistant","content":"","thinking":"well"},"done":false}\n'
    b'{"model":"o-1","message":{"role":"assistant","content":"say \\"done\\":true"},"done":false}\n'
    b'{"model":"o-1","message":{"role":"assistant","content":"","tool_calls":[{"function":{"name":"finish",'
    b'"arguments":{"done":true, "\\"done":true}}}]},"done":false}\n'
    b'{"model":"o-1","message":{"role":"assistant","content":"!"},"done_reason":"stop","done": true,'
    b'"prompt_eval_count":11,"eval_count":5}\n'
)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    """`data`, cut at `cuts`; a cut may repeat, which gives an empty piece."""
    start = 0
    for cut in sorted(min(cut, len(data)) for cut in cuts):
        yield data[start:cut]
        start = cut
    yield data[start:]


def cuts_of(data: bytes) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(0, len(data)), max_size=12)
