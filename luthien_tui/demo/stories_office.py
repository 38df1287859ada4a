"""Stories of agents that run systems and write mail."""

from __future__ import annotations

from luthien_tui.demo.script import Reply, Story, call, turn

_OPS = "You are on call for a shop. You may read everything. You propose every change and wait for a person to say yes."
_OPS_TOOLS = {
    "query_metrics": "Ask Prometheus.",
    "read_logs": "Read log lines of a service.",
    "run": "Run a command on a host; a person approves it first.",
    "page": "Wake a person.",
}

CHECKOUT_DOWN = Story(
    name="checkout-5xx",
    tags="env:prod, severity:2",
    agent="ops",
    wire="messages",
    model="claude-sonnet-5",
    system=_OPS,
    tools=_OPS_TOOLS,
    turns=(
        turn(
            "ALERT checkout 5xx 4.8 % (threshold 1 %) for 6 min, eu-west only.",
            Reply(
                thinking="Only one region: not the code alone. Compare the deploys, then the dependencies of that region.",
                text="One region only, so I look at what differs there first.",
                calls=(
                    call(
                        "query_metrics",
                        "eu-west payment_client_timeouts_total 312/min, us-east 0/min; db connections 48/200 in both",
                        query="sum by (region) (rate(payment_client_timeouts_total[5m]))",
                    ),
                    call(
                        "read_logs",
                        "09:41:07 WARN pay-gw: connect 10.4.17.22:443 timed out after 2000 ms (attempt 3)\n09:41:08 WARN "
                        "pay-gw: connect 10.4.17.22:443 timed out after 2000 ms (attempt 1)",
                        service="checkout",
                        grep="pay-gw",
                        lines=200,
                    ),
                ),
            ),
            "All failures are connects to **one** of the three payment addresses, 10.4.17.22. The other two answer in 90 ms. "
            "Every third checkout waits 2 s, three times, and gives up.\n\nI propose to take 10.4.17.22 out of rotation in "
            "eu-west:\n`meshctl endpoint drain pay-gw 10.4.17.22 --region eu-west`\nIt can be undone with `undrain`. Do it?",
        ),
        turn(
            "Yes, drain it.",
            Reply(
                calls=(
                    call(
                        "run",
                        "drained pay-gw/10.4.17.22 in eu-west (2 of 3 endpoints left)",
                        host="mesh-admin-1",
                        command="meshctl endpoint drain pay-gw 10.4.17.22 --region eu-west",
                    ),
                ),
            ),
            Reply(
                text="Drained at 09:52. Watching.",
                calls=(
                    call(
                        "query_metrics",
                        "09:52 4.6 %  09:53 2.1 %  09:54 0.3 %  09:55 0.1 %",
                        query="checkout_error_ratio{region='eu-west'}[5m]",
                    ),
                ),
            ),
            "Back to 0.1 % since 09:55. Left to do by a person: ask the provider about 10.4.17.22, and decide whether one "
            "dead address should cost every third customer six seconds. A 300 ms connect timeout would have hidden this.",
        ),
        turn(
            "Draft the status page entry.",
            "**Slow and failed payments in Europe (resolved).** Between 09:36 and 09:54 UTC about one in twenty checkouts in "
            "Europe failed. Cause: one address of a payment provider stopped answering. We took it out of use. No payment "
            "was taken twice.",
        ),
    ),
)

DISK_FULL = Story(
    name="disk-full-db3",
    agent="ops",
    wire="chat",
    model="gpt-4o",
    system=_OPS,
    tools=_OPS_TOOLS,
    turns=(
        turn(
            "db-3 disk 94 %, +1.1 %/h. Find what grows.",
            Reply(
                calls=(
                    call(
                        "run",
                        "412G pg_wal\n389G base\n 11G log\n  2G everything else",
                        host="db-3",
                        command="du -xsh /var/lib/postgresql/16/main/* | sort -rh | head",
                    ),
                ),
            ),
            Reply(
                text="`pg_wal` should be about 8 GB, and it is 412 GB. Something keeps it.",
                calls=(
                    call(
                        "run",
                        " slot_name      | active | retained\n analytics_copy | f      | 404 GB\n replica_a      | t      | "
                        "12 MB",
                        host="db-3",
                        command="psql -c 'select slot_name, active, pg_size_pretty(retained) from slots_view'",
                    ),
                ),
            ),
            "The slot `analytics_copy` has had no reader for about fifteen days, and Postgres keeps every WAL file for it. "
            "Dropping the slot frees 404 GB within a checkpoint. **But**: whoever reads it must then copy the tables anew. "
            "Who owns analytics_copy?",
        ),
        turn(
            "Nobody knows. The job was in the old cluster that we switched off.",
            Reply(
                text="Then I ask for approval to drop it:",
                calls=(
                    call(
                        "run",
                        "denied by the operator: ask Wei first, he is back at 14:00",
                        host="db-3",
                        command="psql -c \"select pg_drop_replication_slot('analytics_copy')\"",
                    ),
                ),
                trouble="500",
            ),
            "Denied, understood. At +1.1 % an hour there are five hours left, until about 15:30. I set a cap that buys time "
            "without losing anything that is still needed? `max_slot_wal_keep_size` would do the same as dropping it, so: "
            "no. I wait for Wei.",
        ),
        turn(
            "Wei says drop it.",
            Reply(
                calls=(
                    call(
                        "run",
                        "pg_drop_replication_slot\n\n(1 row)\ndf: /dev/nvme1n1 1.8T 47% used",
                        host="db-3",
                        command="psql -c \"select pg_drop_replication_slot('analytics_copy')\" -c checkpoint",
                    ),
                ),
            ),
            "Dropped; the disk is at 47 %. To add: an alert on `pg_replication_slots` with `active = false` for more than an "
            "hour.",
        ),
    ),
)

_MAIL = (
    "You sort and draft mail for Amara Lindqvist. You never send: you leave drafts. "
    "Names, sums and dates are copied, not guessed."
)
MAIL_TRIAGE = Story(
    name="inbox-monday",
    tags="team:office",
    agent="mail",
    wire="responses",
    model="gpt-5-mini",
    system=_MAIL,
    first="/v1/models",
    tools={"list_mail": "Unread mail.", "read_mail": "One mail.", "draft": "Leave a draft.", "find_slot": "Free times."},
    turns=(
        turn(
            "What needs me this morning?",
            Reply(
                calls=(
                    call(
                        "list_mail",
                        "1 Jonas Weber: Vertrag, Frist Mittwoch\n2 王小明: 关于下周的会议\n3 Lab invoices: overdue 2nd "
                        "notice\n4 newsletter ×11",
                        folder="inbox",
                        unread=True,
                    ),
                ),
            ),
            "Three of fourteen need you:\n• **Jonas Weber**: contract, he needs your yes by *Wednesday*.\n• **王小明 (Wang "
            "Xiaoming)**: asks to move next week's meeting.\n• **Lab invoices**: second notice, €1,840.00, was due on the "
            "3rd.\nThe other eleven are newsletters.",
        ),
        turn(
            "Answer Wang in Chinese: Thursday 10:00 our time works, Tuesday does not.",
            Reply(
                calls=(
                    call(
                        "find_slot", "Thu 10:00-11:00 free (Stockholm) = 16:00 Shanghai", day="Thursday", zone="Europe/Stockholm"
                    ),
                    call(
                        "draft",
                        "draft 7 saved",
                        to="王小明",
                        body="小明，您好：\n\n周二我不方便，周四可以：斯德哥尔摩时间上午10点，也就是上海时间下午4点。"
                        "如果合适，我就把会议改到那个时间。\n\n祝好\nAmara",
                    ),
                ),
            ),
            "Draft 7 is ready: 周四上海时间下午4点 (10:00 in Stockholm). I named both times, so nobody has to calculate.",
        ),
        turn(
            "And the invoice: who forgot it, us or them?",
            Reply(
                calls=(
                    call(
                        "read_mail",
                        "From: billing@lab.example\nInvoice 2291, EUR 1,840.00, due 3rd. First notice was sent to a.lindquist@…",
                        number=3,
                    ),
                ),
            ),
            "Neither quite: their first notice went to *a.lindquist@*, without the v. You never got it. I can leave a draft "
            "that says so and asks them to drop the late fee of €40.",
        ),
        turn(
            "Yes please, friendly.",
            Reply(calls=(call("draft", "draft 8 saved", to="billing@lab.example", body="Hello, thank you for the reminder. …"),)),
            "Draft 8 is ready. It has the invoice number, the misspelt address and one friendly question about the fee.",
        ),
    ),
)

TRAVEL = Story(
    name="trip-lisbon",
    agent="mail",
    wire="chat",
    model="gpt-4o-mini",
    named=False,
    system=_MAIL,
    tools={"search_trains": "Train times.", "draft": "Leave a draft."},
    turns=(
        turn(
            "I must be in Porto on the 14th at 09:30, coming from Lisbon. Night before or early train?",
            Reply(
                calls=(call("search_trains", "AP 120 06:00-08:52; AP 122 07:00-09:58; IC 520 06:30-09:55", day="14", to="Porto"),)
            ),
            "The 06:00 arrives at 08:52, so it works, with 38 minutes for a taxi. It is the only one: if it is late, you "
            "miss the meeting. I would go the night before.",
        ),
        turn(
            "Night before then. Tell João we can have dinner: somewhere quiet, he is vegetarian.",
            Reply(
                calls=(
                    call(
                        "draft",
                        "draft 9 saved",
                        to="João",
                        body="Olá João! Chego na véspera, jantamos? Um sítio calmo e vegetariano…",
                    ),
                )
            ),
            "Draft 9, in Portuguese: *Olá João! Chego na véspera…* I left the place open, he knows Porto better than I do.",
        ),
        turn("Perfect, obrigada!", "De nada. Boa viagem! 🚆"),
    ),
)

STORIES = (CHECKOUT_DOWN, DISK_FULL, MAIL_TRIAGE, TRAVEL)
