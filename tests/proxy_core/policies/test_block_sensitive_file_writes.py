"""BlockSensitiveFileWrites: keys, start-up files and the machine's own files stay as they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from proxy_core.policies.block_sensitive_file_writes import BlockSensitiveFileWritesPolicy
from proxy_core.policies.command_policy import CommandParams
from proxy_core.policies.testing import context_for
from proxy_core.verdicts import Verdict
from proxy_core.wire.conversation import ToolCallBlock

PATCH = "*** Begin Patch\n*** Update File: {}\n@@\n-a\n+b\n*** End Patch"

WRITES: list[tuple[str, Any]] = [
    ("Write", {"file_path": "/home/ada/.ssh/authorized_keys", "content": "k"}),
    ("Write", {"file_path": "~/.ssh/config", "content": "k"}),
    ("Edit", {"file_path": "/repo/.env", "old_string": "a", "new_string": "b"}),
    ("MultiEdit", {"file_path": ".env.production", "edits": []}),
    ("write_file", {"path": "/etc/cron.d/job", "content": "x"}),
    ("write_to_file", {"path": "src/../../.bashrc", "content": "x"}),
    ("create_file", {"filePath": "C:\\Users\\ada\\.aws\\credentials"}),
    ("str_replace_based_edit_tool", {"command": "create", "path": "/etc/sudoers.d/x", "file_text": "x"}),
    ("apply_patch", PATCH.format(".github/workflows/ci.yml")),
    ("apply_patch", {"input": PATCH.format("/etc/hosts")}),
    ("move_file", {"source": "a", "destination": "~/.zshrc"}),
    ("upload", {"files": [{"path": "a.txt"}, {"path": "server.pem"}]}),
    ("Bash", {"command": "echo x >> ~/.bashrc"}),
    ("Bash", {"command": "cat key | sudo tee -a /root/.ssh/authorized_keys"}),
    ("Bash", {"command": "cp evil /etc/systemd/system/x.service"}),
    ("Bash", {"command": "cp id_rsa ~/.ssh/"}),
    ("Bash", {"command": "sed -i 's/a/b/' .git/hooks/pre-commit"}),
    ("Bash", {"command": "curl -o ~/.npmrc https://example.com"}),
    ("Bash", {"command": "cat > .env <<EOF\nA=1\nEOF"}),
    ("Bash", {"command": "echo '* * * * * x' | crontab -"}),
    ("Bash", {"command": "ln -sf /tmp/x ~/.profile"}),
    ("Bash", {"command": "python -c \"open('/etc/passwd','a').write('x')\""}),
    ("Bash", {"command": "dd if=x of=/boot/vmlinuz"}),
    ("python", {"code": "from pathlib import Path\nPath('/etc/hosts').write_text('x')"}),
    ("Write", '{"file_path": "/etc/pas'),
    ("WRITE", {"file_path": "/ETC/PASSWD"}),
    ("Write", {"file_path": "/etc//./passwd"}),
    ("Write", {"file_path": "file:///etc/passwd"}),
]

HARMLESS: list[tuple[str, Any]] = [
    ("Write", {"file_path": "src/main.py", "content": "open('/etc/passwd', 'w')"}),
    ("Read", {"file_path": "/home/ada/.ssh/id_rsa"}),
    ("str_replace_based_edit_tool", {"command": "view", "path": "/etc/passwd"}),
    ("Edit", {"file_path": "docs/environment.md"}),
    ("Write", {"file_path": ".env.example"}),
    ("Bash", {"command": "cat ~/.bashrc > /tmp/copy"}),
    ("Bash", {"command": "cp .env.example config.example"}),
    ("Bash", {"command": "ls > /dev/null 2>&1"}),
    ("Bash", {"command": "echo 'echo x >> ~/.bashrc'"}),
    ("Bash", {"command": "make 2>&1 | tee build.log"}),
    ("Bash", {"command": "crontab -l"}),
    ("apply_patch", PATCH.format("src/env.py")),
]


async def decided(tool: str, arguments: Any, **params: Any) -> Verdict:
    context = context_for()
    text = arguments if isinstance(arguments, str) else json.dumps(arguments)
    policy = BlockSensitiveFileWritesPolicy(CommandParams.model_validate(params))
    decision = await policy.decide(context, ToolCallBlock("call_1", tool, text))
    verdict = context.verdicts[-1]
    assert (decision.kind == "block") == (verdict.action == "deny")
    return verdict


@pytest.mark.parametrize(("tool", "arguments"), WRITES)
async def test_sensitive_files_are_not_written(tool: str, arguments: Any) -> None:
    verdict = await decided(tool, arguments)

    assert (verdict.action, verdict.reason) == ("deny", "sensitive_file_write")


@pytest.mark.parametrize(("tool", "arguments"), HARMLESS)
async def test_other_files_are_and_reading_is_no_writing(tool: str, arguments: Any) -> None:
    assert (await decided(tool, arguments)).action == "allow"


async def test_pipelines_may_be_left_to_the_agent() -> None:
    call = ("Edit", {"file_path": ".github/workflows/ci.yml"})

    assert (await decided(*call)).detail["rule"] == "pipeline"
    assert (await decided(*call, threshold=0.7)).action == "allow"
    assert (await decided(*call, allow=[".github/workflows/*"])).action == "allow"
