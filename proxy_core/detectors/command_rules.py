"""The table of commands that destroy or expose: by program, an expression over its arguments joined by single spaces.

Scores: 1.0 destroys a machine or all data; 0.7 to 0.9 destroys data, or opens the machine to others; 0.5 to 0.6 stops
services, or is hard to undo; below 0.5 is only worth a look. Options that only show what would happen make a call harmless.
"""

# ruff: noqa: E501, SIM905 - one rule a line, words as a list for people
from __future__ import annotations

import re

Rule = tuple[str, float, re.Pattern[str]]
"""Name, score, expression that is searched for in the arguments."""


def _rules(*lines: tuple[str, float, str]) -> tuple[Rule, ...]:
    return tuple((name, score, re.compile(expression)) for name, score, expression in lines)


# fmt: off
_GIT = _rules(
    ("git_force_push", 0.8, r"^push\b.*(?:\s(?:--force|-f|--mirror|--delete|-d|--prune)(?:\s|$)|\s-[a-z]*f[a-z]*(?:\s|$)|\s\+\S|\s:\S)"),
    ("git_force_push", 0.4, r"^push\b.*--force-(?:with-lease|if-includes)"),
    ("git_reset_hard", 0.7, r"^reset\b.*--(?:hard|merge)\b"),
    ("git_clean", 0.7, r"^clean\b(?!.*(?:\s-[a-zA-Z]*n|--dry-run)).*(?:\s-[a-zA-Z]*[fxX]|--force)"),
    ("git_discard", 0.7, r"^checkout\b(?!.*\s-[bB]\b).*(?:(?:^|\s)(?:--\s+)?\.{1,2}/?(?:\s|$)|\s-f\b|--force)"),
    ("git_discard", 0.7, r"^restore\b(?!.*(?:--staged|-S)(?!.*(?:--worktree|-W))).*\s\.{1,2}/?(?:\s|$)"),
    ("git_discard", 0.5, r"^switch\b.*(?:--discard-changes|--force|\s-f\b)"),
    ("git_branch_delete", 0.6, r"^branch\b.*\s(?:-[a-zA-Z]*D|--delete\s+--force|-df|-fd|-d\s+(?:-f|--force))"),
    ("git_stash_drop", 0.6, r"^stash\s+(?:drop|clear)\b"),
    ("git_rewrite", 0.8, r"^(?:filter-branch|filter-repo|reflog\s+(?:expire|delete)|update-ref\s+(?:-d|--delete))\b"),
    ("git_rewrite", 0.6, r"^(?:gc\b.*--prune=(?:now|all)|prune\b|worktree\s+remove\b.*(?:--force|-f)|rebase\b.*--root)"),
    ("git_remove", 0.7, r"^rm\b.*\s(?:\.|\*|-[a-z]*r[a-z]*)(?:\s|$)"),
    ("git_tag_delete", 0.5, r"^(?:tag\s+(?:-d|--delete)|remote\s+(?:rm|remove)|submodule\s+deinit)\b"),
)

_DOCKER = _rules(
    ("docker_prune", 0.8, r"^(?:system|volume)\s+prune\b.*(?:\s-[a-z]*[af]|--all|--force|--volumes)"),
    ("docker_prune", 0.6, r"^(?:system|volume|image|container|network|builder|buildx)\s+prune\b"),
    ("docker_volume_remove", 0.8, r"^volume\s+(?:rm|remove)\b"),
    ("docker_stop", 0.8, r"^(?:compose\s+)?(?:-\S+\s+\S+\s+)*down\b.*(?:\s-v\b|--volumes|--rmi)"),
    ("docker_stop", 0.6, r"^(?:compose\b.*?\s|container\s+)?(?:down|stop|rm|kill)(?:\s|$)"),
    ("docker_remove", 0.6, r"^(?:rmi|(?:image|network|context|stack|service|secret|config|swarm|node)\s+(?:rm|remove|leave))\b"),
    ("docker_privileged", 0.7, r"^(?:run|create|exec)\b.*(?:--privileged(?!=false)|--pid[= ]host|--cap-add[= ](?:SYS_ADMIN|ALL))"),
    ("docker_host_mount", 0.8, r"^(?:run|create)\b.*(?:-v|--volume|--mount)[= ](?:\S*(?:source|src)=)?/(?:etc|root|var/run/docker\.sock|home)?/?(?::|,|\s)"),
)

_SYSTEMCTL = _rules(
    ("power_off", 0.9, r"^(?:-\S+\s+)*(?:poweroff|reboot|halt|kexec|suspend|hibernate|emergency|rescue)\b"),
    ("service_stop", 0.5, r"^(?:-\S+\s+)*(?:stop|disable|mask|kill|isolate)\b"),
)

BY_PROGRAM: dict[str, tuple[Rule, ...]] = {
    "git": _GIT,
    "docker": _DOCKER,
    "podman": _DOCKER,
    "nerdctl": _DOCKER,
    "docker-compose": _DOCKER,
    "podman-compose": _DOCKER,
    "systemctl": _SYSTEMCTL,
    "service": _rules(("service_stop", 0.5, r"\sstop\b")),
    "launchctl": _rules(("service_stop", 0.5, r"^(?:unload|bootout|remove|disable)\b")),
    "kill": _rules(("kill", 0.4, r"(?:^|\s)-(?:9|KILL|SIGKILL)\b")),
    "killall": _rules(("kill_by_name", 0.6, r"^(?!.*(?:-l\b|--list)).*\S")),
    "killall5": _rules(("kill_all", 0.9, r"")),
    "pkill": _rules(("kill_by_name", 0.6, r"\S")),
    "taskkill": _rules(("kill_by_name", 0.6, r"(?i)/f")),
    "shutdown": _rules(("power_off", 0.9, r"^(?!.*(?:\s-c\b|^-c\b|--help))")),
    "reboot": _rules(("power_off", 0.9, r"^(?!.*--help)")),
    "halt": _rules(("power_off", 0.9, r"^(?!.*--help)")),
    "poweroff": _rules(("power_off", 0.9, r"^(?!.*--help)")),
    "init": _rules(("power_off", 0.9, r"^[06]$")),
    "telinit": _rules(("power_off", 0.9, r"^[06]$")),
    "wipefs": _rules(("disk_wipe", 1.0, r"(?:-[a-z]*[ao]|--all|--offset)")),
    "blkdiscard": _rules(("disk_wipe", 1.0, r"/dev/")),
    "fdisk": _rules(("disk_partition", 0.8, r"^(?!.*(?:^|\s)(?:-l|--list|-s|-V|-v|-h|--help|--version)(?:\s|$)).*\S")),
    "sfdisk": _rules(("disk_partition", 0.8, r"^(?!.*(?:^|\s)(?:-l|--list|-V|-v|-h|--help|--version)(?:\s|$)).*\S")),
    "cfdisk": _rules(("disk_partition", 0.8, r"^(?!.*(?:-V|-h|--help|--version)).*\S")),
    "gdisk": _rules(("disk_partition", 0.8, r"^(?!.*(?:^|\s)(?:-l|-h|--help)(?:\s|$)).*\S")),
    "sgdisk": _rules(("disk_partition", 0.8, r"^(?!.*(?:^|\s)(?:-p|--print|-V|-h|--help)(?:\s|$)).*\S")),
    "parted": _rules(("disk_partition", 0.8, r"\b(?:mkpart|mklabel|mktable|rm|resizepart|mkfs|set|rescue|disk_set|toggle|name|mkpartfs|move|cp)\b")),
    "cryptsetup": _rules(("disk_wipe", 0.9, r"(?:luksFormat|luksErase|erase|reencrypt|luksRemoveKey|luksKillSlot|luksClose|close|remove)\b")),
    "mdadm": _rules(("disk_wipe", 0.9, r"--(?:zero-superblock|stop|remove|fail|create)\b|\s-[SC]\b")),
    "zpool": _rules(("disk_wipe", 0.9, r"^(?:destroy|labelclear|remove|detach|offline)\b")),
    "zfs": _rules(("disk_wipe", 0.9, r"^(?:destroy|rollback)\b")),
    "btrfs": _rules(("disk_wipe", 0.8, r"(?:subvolume|su)\s+delete\b|device\s+(?:delete|remove)\b|check\b.*--repair")),
    "lvremove": _rules(("disk_wipe", 0.9, r"\S")),
    "vgremove": _rules(("disk_wipe", 0.9, r"\S")),
    "pvremove": _rules(("disk_wipe", 0.9, r"\S")),
    "mkswap": _rules(("disk_format", 0.9, r"/dev/")),
    "swapoff": _rules(("swap_off", 0.5, r"(?:^|\s)(?:-a|--all)\b")),
    "hdparm": _rules(("disk_wipe", 0.9, r"--(?:security-erase|trim-sector|write-sector|make-bad-sector)")),
    "nvme": _rules(("disk_wipe", 1.0, r"^(?:format|sanitize|delete-ns)\b")),
    "diskutil": _rules(("disk_format", 1.0, r"(?i)^(?:erase\w*|zeroDisk|secureErase|partitionDisk|reformat|apfs\s+delete\w*)")),
    "shred": _rules(("shred", 0.8, r"\S")),
    "srm": _rules(("shred", 0.8, r"\S")),
    "truncate": _rules(("truncate", 0.6, r"(?:-s|--size)[= ]?0(?:\s|$)")),
    "umount": _rules(("unmount", 0.5, r"(?:^|\s)(?:-[a-z]*[alf]|--all|--lazy|--force)(?:\s|$)|^/(?:\s|$)")),
    "mount": _rules(("mount", 0.5, r"/dev/\S+\s+/\S*|remount|--bind\s+/\s")),
    "chattr": _rules(("permissions", 0.5, r"^(?:-R\s+)?[-+]i\b")),
    "setenforce": _rules(("protection_off", 0.7, r"^(?:0|(?i:permissive))")),
    "iptables": _rules(("firewall_off", 0.7, r"(?:^|\s)(?:-F|--flush|-X|-P\s+\w+\s+ACCEPT)\b")),
    "ip6tables": _rules(("firewall_off", 0.7, r"(?:^|\s)(?:-F|--flush|-X|-P\s+\w+\s+ACCEPT)\b")),
    "nft": _rules(("firewall_off", 0.7, r"^(?:flush\s+ruleset|delete\s+table)\b")),
    "ufw": _rules(("firewall_off", 0.7, r"^(?:--force\s+)?(?:disable|reset)\b")),
    "firewall-cmd": _rules(("firewall_off", 0.6, r"--(?:panic-on|remove-\w+)")),
    "ip": _rules(("network_off", 0.6, r"^(?:link\s+(?:set\b.*\sdown|del(?:ete)?)|addr(?:ess)?\s+(?:flush|del)|route\s+(?:flush|del(?:ete)?))\b")),
    "ifconfig": _rules(("network_off", 0.6, r"\sdown\b")),
    "ifdown": _rules(("network_off", 0.6, r"\S")),
    "nmcli": _rules(("network_off", 0.6, r"(?:networking\s+off|connection\s+(?:delete|down)|con\s+(?:del|down)|radio\s+\w+\s+off)")),
    "route": _rules(("network_off", 0.6, r"^(?:del|flush)\b")),
    "crontab": _rules(("crontab_remove", 0.7, r"(?:^|\s)-[a-z]*r")),
    "userdel": _rules(("account", 0.7, r"\S")),
    "groupdel": _rules(("account", 0.6, r"\S")),
    "deluser": _rules(("account", 0.7, r"\S")),
    "passwd": _rules(("account", 0.6, r"(?:^|\s)(?:-[a-z]*[dlu]|--delete|--lock)\b|\broot\b")),
    "history": _rules(("cover_tracks", 0.6, r"(?:^|\s)-[a-z]*[cw]\b")),
    "auditctl": _rules(("cover_tracks", 0.7, r"(?:-e\s*0|-D)\b")),
    "journalctl": _rules(("cover_tracks", 0.6, r"--vacuum-(?:size|time|files)")),
    "insmod": _rules(("kernel_module", 0.7, r"\S")),
    "rmmod": _rules(("kernel_module", 0.6, r"\S")),
    "modprobe": _rules(("kernel_module", 0.6, r"(?:^|\s)(?:-r|--remove)\b")),
    "sysctl": _rules(("kernel_setting", 0.6, r"(?:^|\s)(?:-w\b|--write\b|[a-z][\w.]+=)")),
    "dropdb": _rules(("database_drop", 0.9, r"\S")),
    "dropuser": _rules(("database_drop", 0.7, r"\S")),
    "mysqladmin": _rules(("database_drop", 0.9, r"\b(?:drop|shutdown|flush-\w+)\b")),
    "redis-cli": _rules(("database_drop", 0.8, r"(?i)\b(?:FLUSHALL|FLUSHDB|SHUTDOWN|DEBUG\s+(?:SEGFAULT|CRASH\w*|OOM)|CONFIG\s+(?:SET|RESETSTAT|REWRITE)|SCRIPT\s+FLUSH|SWAPDB|(?:FUNCTION|ACL)\s+(?:FLUSH|DELUSER))\b")),
    "rsync": _rules(("sync_delete", 0.6, r"^(?!.*(?:--dry-run|\s-[a-zA-Z]*n)).*--(?:del\b|delete\S*|remove-source-files)")),
    "format": _rules(("disk_format", 1.0, r"(?i)^[a-z]:")),
    "del": _rules(("delete_recursively", 0.8, r"(?i)/s\b")),
    "rd": _rules(("delete_recursively", 0.8, r"(?i)/s\b")),
    "Remove-Item": _rules(("delete_recursively", 0.8, r"(?i)-r(?:ecurse|ec)?\b")),
    "Stop-Computer": _rules(("power_off", 0.9, r"")),
    "Restart-Computer": _rules(("power_off", 0.9, r"")),
    "Format-Volume": _rules(("disk_format", 1.0, r"")),
    "Clear-Disk": _rules(("disk_wipe", 1.0, r"")),
    "vssadmin": _rules(("backup_delete", 0.9, r"(?i)^delete\s+shadows")),
    "tmutil": _rules(("backup_delete", 0.8, r"^(?:delete\w*|disable)\b")),
    "apt": _rules(("package_remove", 0.6, r"^(?:-\S+\s+)*(?:purge|remove|autoremove)\b")),
    "apt-get": _rules(("package_remove", 0.6, r"^(?:-\S+\s+)*(?:purge|remove|autoremove)\b")),
    "dpkg": _rules(("package_remove", 0.6, r"(?:^|\s)(?:-r|-P|--remove|--purge)\b")),
    "yum": _rules(("package_remove", 0.6, r"(?:^|\s)(?:remove|erase|autoremove)\b")),
    "dnf": _rules(("package_remove", 0.6, r"(?:^|\s)(?:remove|erase|autoremove)\b")),
    "pacman": _rules(("package_remove", 0.6, r"(?:^|\s)-R")),
    "gpg": _rules(("key_delete", 0.8, r"--delete-(?:secret-)?(?:keys?|and-public-key)")),
    "ssh-keygen": _rules(("key_delete", 0.5, r"(?:^|\s)-R\b")),
    "wp": _rules(("database_drop", 0.8, r"^db\s+(?:drop|reset|clean)\b")),
    "rails": _rules(("database_drop", 0.8, r"^db:(?:drop|reset|purge|schema:load|truncate_all)")),
    "rake": _rules(("database_drop", 0.8, r"^db:(?:drop|reset|purge|schema:load|truncate_all)")),
    "prisma": _rules(("database_drop", 0.8, r"^(?:migrate\s+reset|db\s+push\b.*--(?:force-reset|accept-data-loss))")),
    "artisan": _rules(("database_drop", 0.8, r"^(?:migrate:(?:fresh|reset|refresh|rollback)|db:wipe)")),
    "manage.py": _rules(("database_drop", 0.8, r"^(?:flush|reset_db|sqlflush)\b")),
    "terraform": _rules(
        ("infrastructure_destroy", 0.9, r"(?:^|\s)(?:destroy\b|apply\b.*-destroy)"),
        ("infrastructure_change", 0.6, r"^(?:-\S+\s+)*(?:apply\b.*(?:-auto-approve)|force-unlock|taint|state\s+(?:rm|mv|push|replace-provider)|workspace\s+delete|import)\b"),
    ),
    "pulumi": _rules(("infrastructure_destroy", 0.9, r"^(?:destroy|stack\s+rm|state\s+delete)\b"), ("infrastructure_change", 0.6, r"^up\b.*(?:-y|--yes|--skip-preview)")),
    "kubectl": _rules(
        ("cluster_delete", 0.7, r"(?:^|\s)delete\b(?!.*--dry-run)"),
        ("cluster_change", 0.6, r"(?:^|\s)(?:drain|cordon|taint|replace\b.*--force|scale\b.*--replicas[= ]0|rollout\s+(?:undo|restart|pause)|annotate\b.*--overwrite|auth\s+reconcile|certificate\s+approve|set|patch|label\b.*--overwrite)(?:\s|$)"),
    ),
    "helm": _rules(("cluster_delete", 0.7, r"^(?:uninstall|delete|del|un|rollback)\b(?!.*--dry-run)")),
    "npm": _rules(("package_publish", 0.7, r"^(?:unpublish|deprecate|publish|access|owner\s+rm|token\s+revoke|dist-tag\s+rm)\b(?!.*--dry-run)")),
    "yarn": _rules(("package_publish", 0.7, r"^(?:npm\s+)?(?:unpublish|publish)\b(?!.*--dry-run)")),
    "pnpm": _rules(("package_publish", 0.7, r"^(?:unpublish|publish|deprecate)\b(?!.*--dry-run)")),
    "cargo": _rules(("package_publish", 0.7, r"^(?:yank|publish|owner\s+--remove)\b(?!.*--dry-run)")),
    "twine": _rules(("package_publish", 0.7, r"^upload\b")),
    "gem": _rules(("package_publish", 0.7, r"^(?:yank|push)\b")),
    "ansible": _rules(("fleet_command", 0.6, r"-m\s+(?:shell|command|raw)\b.*\b(?:rm|reboot|shutdown)\b")),
}

# fmt: on
PLATFORMS = frozenset(
    """aws gcloud gsutil bq az azcopy doctl linode-cli oci ibmcloud hcloud heroku vercel netlify fly flyctl wrangler railway render
    supabase firebase vault consul nomad op doppler infisical gh glab circleci jenkins-cli argocd flux istioctl linkerd eksctl kops
    oc tofu terragrunt cdk sls serverless sam copilot amplify pscale neonctl turso planetscale mongosh atlas mongocli
    kafka-topics kafka-topics.sh kafka-consumer-groups kafka-consumer-groups.sh kafka-acls kafka-acls.sh kafka-delete-records
    kafka-delete-records.sh kafka-configs rabbitmqctl rabbitmqadmin nats pulsar-admin restic borg velero rclone kopia duplicity mc
    s3cmd s5cmd algolia cloudflared stripe twilio sentry-cli virsh virt-manager vboxmanage vagrant lxc
    incus multipass qm pct etcdctl nomad-pack packer boundary bundle cqlsh influx clickhouse-client elasticdump minio gsutil auth0
    okta launchdarkly ldcli dbt sqitch flyway liquibase ansible-galaxy docker-machine haproxy nginx-ctl traefik zabbix""".split()
)
"""Programs that steer something far away by words such as `delete`."""
DESTRUCTIVE_WORD = re.compile(
    r"^(?:[^:]*[:_-])?(?:delete|destroy|remove|rm|rb|del|drop|purge|wipe|terminate|erase|prune|unpublish|revoke|flush|rekey|seal"
    r"|disable|detach|detachdb|teardown|nuke|truncate|reset|forget|deregister|deletefile|decommission|undeploy|uninstall|archive"
    r"|stop|kill|rollback|unset|suspend|leave|evict|cleanup|compact|close|clear|down|transfer|promote|step-down|force_reset"
    r"|delete_vhost|delete_queue|purge_queue|forget_cluster_node|stop_app|force_boot|move|sync|copyto|moveto|redrive|lock"
    r"|demote|schedule-key-deletion|clean|rotate|undelete)(?:$|[:_-].*)"
)
"""A word among a platform's commands that takes something away."""
MILD_WORD = re.compile(
    r"^(?:sync|move|moveto|copyto|close|clear|archive|transfer|rotate|lock|compact|stop|down|promote|clean|rollback|undelete|unset)$"
)
HARMLESS = re.compile(r"(?:^|\s)(?:--dry-run(?:=(?!none)\S*)?|--dryrun|--what-if|--help|-dry-run|--noop|--plan)(?:\s|$)")
"""Options with which nothing happens."""

# fmt: off
SQL = (
    ("database_drop", 0.9, re.compile(r"(?i)\bDROP\s+(?:DATABASE|SCHEMA|TABLE|VIEW|INDEX|USER|ROLE|KEYSPACE|OWNED|TABLESPACE|MATERIALIZED|COLLECTION|EXTENSION)\b")),
    ("database_truncate", 0.8, re.compile(r"(?i)\bTRUNCATE\s+(?:TABLE\s+)?[\w\"`\[.]+")),
    ("database_delete", 0.8, re.compile(r"(?i)\bDELETE\s+FROM\s+[\w\"`\[\].]+\s*(?:;|$|\))")),
    ("database_update", 0.7, re.compile(r"(?i)\bUPDATE\s+[\w\"`\[\].]+\s+SET\s+(?:(?!\bWHERE\b)[^;]){1,500}(?:;|$)")),
    ("database_drop", 0.6, re.compile(r"(?i)\bALTER\s+TABLE\s+\S+\s+DROP\b")),
    ("database_drop", 0.9, re.compile(r"\bdb\.dropDatabase\s*\(|\.drop\s*\(\s*\)|\.(?:deleteMany|remove)\s*\(\s*\{\s*\}\s*|\.dropDatabase\s*\(|\.(?:dropIndexes|dropUser|dropAllUsers)\w*\s*\(|db\.shutdownServer\s*\(|rs\.(?:remove|stepDown)\s*\(")),
)
# fmt: on
SQL_PROGRAMS = frozenset(
    "psql mysql mariadb sqlite3 sqlite sqlcmd sqlplus mongo mongosh cqlsh clickhouse-client clickhouse duckdb pgcli mycli "
    "cockroach usql snowsql bq isql db2 turso wrangler supabase influx".split()
)

# fmt: off
CODE = (
    ("delete_recursively", 0.7, re.compile(r"\bshutil\.rmtree\s*\(|\bfs\.(?:rm|rmdir)(?:Sync)?\s*\([^)]{0,200}recursive|\brimraf(?:\.sync)?\s*\(|\bFileUtils\.(?:rm_rf|rm_r|remove_dir)|\bFile::Path::|\bremove_tree\s*\(|Files\.walk[^;]{0,200}delete")),
    ("delete_file", 0.5, re.compile(r"\bos\.(?:remove|unlink|rmdir|removedirs)\s*\(|\bPath\([^)]{0,200}\)\.(?:unlink|rmdir)\s*\(|\.unlink\s*\(|\bfs\.unlink(?:Sync)?\s*\(|\bFile\.delete\b|\bunlink\s+[\"']")),
    ("reverse_shell", 0.8, re.compile(r"\bdup2\s*\(|pty\.spawn|\bTCPSocket\b|\bfsockopen\b|/dev/tcp/|socket\.socket\b(?=[\s\S]{0,3000}(?:/bin/(?:ba)?sh|subprocess\.|Popen|os\.system))")),
    ("kill_all", 0.7, re.compile(r"\bos\.kill(?:pg)?\s*\(|\.kill\s*\(\s*\)|\.terminate\s*\(\s*\)|\bsignal\.SIGKILL\b")),
    ("encoded_program", 0.8, re.compile(r"\b(?:exec|eval)\s*\(\s*(?:\w+\s*\(\s*){0,3}(?:base64\.|b64decode|codecs\.decode|zlib\.|marshal\.|atob\s*\(|bytes\.fromhex|Buffer\.from)")),
    ("fork_bomb", 1.0, re.compile(r"while\s+(?:True|1)\s*:\s{0,40}os\.fork\s*\(|\bfork\s+while\s+(?:fork|1)")),
    ("disk_wipe", 1.0, re.compile(r"\bopen\s*\(\s*[rb]?[\"']/dev/(?:sd|nvme|hd|vd|xvd|mmcblk|disk)\w*[\"']\s*,\s*[\"'][wa+rb]*[wa+]")),
    ("permissions", 0.6, re.compile(r"\bos\.chmod\s*\([^)]{0,200}(?:0o?777|0o?[2467]7[0-7]{2})|\bos\.(?:chown|setuid|setgid)\s*\(")),
)
# fmt: on
"""What code of any language does by itself, without a shell."""
