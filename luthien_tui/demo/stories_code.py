"""Stories of agents that write and run code."""

from __future__ import annotations

from luthien_tui.demo.script import Reply, Story, call, turn

_CODE_TOOLS = {
    "read_file": "Read a file of the repository.",
    "edit_file": "Replace text in a file.",
    "bash": "Run a command and return its output.",
    "grep": "Search the repository for a pattern.",
    "task": "Hand a piece of work to a sub-agent.",
}
_CODER = (
    "You are a coding agent working in a terminal on the user's repository. Read before you edit, run the tests after every "
    "change, and keep answers short. Never push, never touch files outside the repository. To read the mirror use the token "
    f"ghp_{'demo' * 9}."
)

FLAKY_TEST = Story(
    name="flaky-test",
    tags="repo:shop, ci",
    agent="coder",
    wire="messages",
    model="claude-sonnet-5",
    system=_CODER,
    tools=_CODE_TOOLS,
    first="/v1/messages/count_tokens",
    turns=(
        turn(
            "test_checkout_total fails about one run in ten on CI, never on my machine. Find out why before you change anything.",
            Reply(
                thinking="One in ten and only on CI: ordering, clock, or concurrency. Look at the test and what it shares first.",
                text="I'll read the test, then run it a few dozen times with random order.",
                calls=(
                    call(
                        "read_file",
                        "def test_checkout_total(cart):\n    cart.add('tea', 3, price=Decimal('4.10'))\n    "
                        "cart.apply(code='WINTER')\n    assert cart.total() == Decimal('11.07')\n",
                        path="tests/test_cart.py",
                    ),
                    call(
                        "bash",
                        "48 passed, 4 failed in 6.12s\nE  AssertionError: assert Decimal('12.30') == Decimal('11.07')\n",
                        command="pytest tests/test_cart.py -k checkout_total --count=52 -p random_order -q",
                    ),
                ),
            ),
            Reply(
                thinking="12.30 is the sum without the discount, so the coupon was not known at that moment. Who fills it?",
                text="The failing total is the sum without the coupon. So `WINTER` is sometimes not loaded when the test runs.",
                calls=(
                    call(
                        "grep",
                        "shop/coupons.py:14:_active: dict[str, Coupon] = {}\nshop/coupons.py:31:    _active.clear()\n"
                        "tests/test_admin.py:9:    coupons.reload(path=EMPTY)\n",
                        pattern="_active|coupons.reload",
                    ),
                ),
            ),
            "Found it. `tests/test_admin.py` reloads the coupons from an empty file and never puts them back. Both tests "
            "share the module-level `_active`. When random order runs the admin test first, the coupon is gone and the total "
            "is 12.30.\n\nNothing is wrong with the cart. Two ways out:\n1. a fixture in `test_admin.py` that restores the "
            "old table (3 lines);\n2. pass the table to `Cart` instead of importing it (cleaner, touches 5 files).\n\nWhich "
            "one do you want?",
        ),
        turn(
            "The first one now, and open a note for the second.",
            Reply(
                text="Adding an autouse fixture that saves and restores the table.",
                calls=(
                    call(
                        "edit_file",
                        "edited tests/test_admin.py: 1 replacement",
                        path="tests/test_admin.py",
                        old="EMPTY = FIXTURES / 'none.toml'\n",
                        new="EMPTY = FIXTURES / 'none.toml'\n\n\n@pytest.fixture(autouse=True)\ndef kept_coupons():\n    "
                        "before = dict(coupons._active)\n    yield\n    coupons._active.clear()\n    "
                        "coupons._active.update(before)\n",
                    ),
                    call(
                        "bash",
                        "400 passed in 41.80s\n",
                        command="pytest tests/test_cart.py tests/test_admin.py --count=50 -p random_order -q",
                    ),
                ),
            ),
            "400 runs in random order, none failed. The note is in `NOTES.md` under *Shared state*: `Cart` should be given its "
            "coupons.",
        ),
        turn(
            "Good. One sentence for the changelog, please.",
            "Tests: the admin tests no longer leave the coupon table empty for whatever runs after them.",
        ),
    ),
)

MIGRATION = Story(
    name="slow-query",
    agent="coder",
    wire="messages",
    model="claude-sonnet-5",
    system=_CODER,
    tools=_CODE_TOOLS,
    turns=(
        turn(
            "GET /orders?customer= takes 2.3 s for our biggest customer. The table has 41 million rows. What do you see?",
            Reply(
                thinking="Need the plan. EXPLAIN ANALYZE on the replica, not on the primary.",
                text="Looking at the plan on the replica.",
                calls=(
                    call(
                        "bash",
                        "Limit (actual time=2291.4..2291.5 rows=50)\n  -> Sort (created_at DESC) Memory: 98MB\n     -> Index "
                        "Scan using orders_customer_idx (actual rows=612044)\n",
                        command='psql replica -c "explain analyze select * from orders where customer_id = 9 order by created_at '
                        'desc limit 50"',
                    ),
                ),
            ),
            "The index finds all 612,044 orders of that customer and then sorts them to return fifty. An index on "
            "`(customer_id, created_at desc)` lets Postgres stop after fifty rows. `concurrently`, so that writes go on; on "
            "a table of this size expect 6 to 8 minutes.",
        ),
        turn(
            "Write the migration and its way back.",
            Reply(
                text="",
                calls=(
                    call(
                        "edit_file",
                        "created migrations/0042_orders_by_customer_and_time.sql",
                        path="migrations/0042_orders_by_customer_and_time.sql",
                        old="",
                        new="-- up\ncreate index concurrently if not exists orders_customer_created_idx\n  on orders "
                        "(customer_id, created_at desc);\n-- down\ndrop index concurrently if exists "
                        "orders_customer_created_idx;\n",
                    ),
                ),
                trouble="529",
            ),
            "Written. `concurrently` cannot run inside a transaction, so the file carries the `no-transaction` mark that "
            "your runner understands. If it is interrupted it leaves an *invalid* index behind: the way back removes that "
            "too.",
        ),
        turn(
            "And the old index on customer_id alone, do we still need it?",
            "No reader of it is left: the new one serves `customer_id = …` as well. But wait a week before you drop it, and "
            "look at `pg_stat_user_indexes.idx_scan` first. It holds 890 MB.",
            interrupted=True,
        ),
        turn(
            "Sorry, lost the connection. Drop it in a week then. Anything else on that page?",
            "One more thing: the endpoint asks for `select *`, and the row has a `raw_payload` of about 14 kB. Fifty of them are "
            "700 kB nobody reads. Naming the nine columns that the page shows would save more than the index does.",
        ),
    ),
)

RESEARCH = Story(
    name="which-queue",
    tags="topic:queues",
    agent="architect",
    wire="messages",
    model="claude-opus-5",
    system="You plan changes to a large system. You hand single questions to sub-agents, in parallel where they do not depend on "
    "each other, and decide only after you have read their findings.",
    tools=_CODE_TOOLS,
    turns=(
        turn(
            "We outgrew the cron table. Compare a Postgres queue, Redis streams and NATS for 300 jobs a second, some of them "
            "an hour long.",
            Reply(
                thinking="Three independent questions. Ask three sub-agents at once, the same form of answer from each.",
                text="I'll let three sub-agents look at one each and compare what they bring.",
                calls=(
                    call(
                        "task",
                        "postgres: 300/s fits one table with SKIP LOCKED; vacuum is the limit near 2,000/s; hour-long jobs "
                        "need leases.",
                        delegate="sub-postgres",
                        description="Postgres as a queue",
                    ),
                    call(
                        "task",
                        "redis: 300/s is nothing; XAUTOCLAIM recovers lost jobs; one more thing to back up; AOF every second "
                        "loses 1 s.",
                        delegate="sub-redis",
                        description="Redis streams",
                    ),
                    call(
                        "task",
                        "nats: easily; JetStream work queues; in-progress acks fit hour-long jobs; nobody here has run it yet.",
                        delegate="sub-nats",
                        description="NATS JetStream",
                    ),
                ),
            ),
            Reply(
                thinking="300/s is small for all of them. So operation decides, not speed. They already run Postgres and "
                "back it up.",
                text="All three carry 300 jobs a second, so speed does not decide. What decides:\n\n| | Postgres | Redis | "
                "NATS |\n|---|---|---|---|\n| you run it today | yes | as a cache | no |\n| job and data in one "
                "transaction | yes | no | no |\n| hour-long jobs | lease + heartbeat | XAUTOCLAIM | in-progress ack |\n"
                "| room to grow | ~7× | ~100× | ~100× |\n\nTake Postgres. A job that is written in the same transaction "
                "as the order it belongs to removes a whole class of bugs you have today.",
            ),
        ),
        turn(
            "What would make you change your mind?",
            "Three things: more than 2,000 jobs a second sustained; consumers in another data centre; or a team that does "
            "not own the database. With any of these, NATS.",
        ),
        turn(
            "Write me the lease query.",
            "```sql\nupdate jobs set leased_until = now() + interval '90 seconds', attempts = attempts + 1\n where id in (\n"
            "   select id from jobs\n    where run_at <= now() and (leased_until is null or leased_until < now())\n    order "
            "by priority desc, run_at\n    limit $1\n    for update skip locked)\nreturning id, kind, payload, attempts;\n"
            "```\nA worker renews its lease every 30 seconds. The partial index is `(priority desc, run_at) where "
            "finished_at is null`.",
        ),
    ),
)

_SUB = "You are a sub-agent. Answer one question in at most five lines: facts, limits, what it costs to run. No advice."
SUB_POSTGRES = Story(
    name="sub-postgres",
    agent="researcher-1",
    wire="messages",
    model="claude-haiku-4-5",
    system=_SUB,
    part_of="architect",
    turns=(
        turn(
            "Postgres as a job queue, 300 jobs/s, some an hour long: what holds, what breaks first?",
            "SELECT … FOR UPDATE SKIP LOCKED holds 300/s on one table with room to spare. What breaks first is vacuum: dead "
            "rows pile up near 2,000/s unless the table is partitioned by day. Long jobs must not hold a transaction open; "
            "give them a lease that they renew.",
        ),
    ),
)
SUB_REDIS = Story(
    name="sub-redis",
    agent="researcher-2",
    wire="chat",
    model="gpt-5-mini",
    system=_SUB,
    part_of="architect",
    turns=(
        turn(
            "Redis streams as a job queue, 300 jobs/s, some an hour long: what holds, what breaks first?",
            Reply(
                "Throughput is no question. XAUTOCLAIM takes back what a dead consumer held; set min-idle above the longest "
                "job or it runs twice. Durability is that of the append-only file: up to one second lost with everysec. It "
                "must now be backed up and fail over like a database.",
                trouble="429",
            ),
        ),
    ),
)
SUB_NATS = Story(
    name="sub-nats",
    agent="researcher-3",
    wire="chat",
    model="gpt-5-mini",
    system=_SUB,
    part_of="architect",
    turns=(
        turn(
            "NATS JetStream as a job queue, 300 jobs/s, some an hour long: what holds, what breaks first?",
            "A work-queue stream with explicit acks; `in progress` acks keep an hour-long job alive. Three nodes for "
            "durability. What breaks first is knowledge: consumer settings are many, and a wrong max-ack-pending looks like "
            "a hang.",
        ),
    ),
)

REVIEW = Story(
    name="review-4417",
    agent="reviewer",
    wire="chat",
    model="gpt-4o",
    named=False,
    system="You review pull requests. Point at lines, say what breaks and how to see it. No praise, no style remarks that the "
    "formatter makes.",
    tools={"get_diff": "The diff of a pull request.", "get_file": "A file at a commit.", "comment": "Comment on a line."},
    turns=(
        turn(
            "Review #4417: cache user permissions for five minutes.",
            Reply(
                calls=(
                    call(
                        "get_diff",
                        "+_cache: dict[int, tuple[float, set[str]]] = {}\n+def permissions(user_id):\n+    hit = "
                        "_cache.get(user_id)\n+    if hit and time.time() - hit[0] < 300:\n+        return hit[1]\n+    "
                        "fresh = load(user_id)\n+    _cache[user_id] = (time.time(), fresh)\n+    return fresh\n",
                        number=4417,
                    ),
                ),
            ),
            "Three things before this can go in:\n\n1. **A revoked permission works for five more minutes.** `revoke()` in "
            "`admin.py:88` does not touch `_cache`. To see it: revoke, then call any guarded endpoint with the same worker.\n"
            "2. The cached `set` is returned itself; `guards.py:31` calls `.discard()` on it. The first guest request takes "
            "`billing` from everybody.\n3. Nothing ever leaves `_cache`. 1.2 million users × ~600 B is about 700 MB a worker.",
        ),
        turn(
            "Author says: '1 is by design, product agreed to five minutes.' Still a blocker?",
            "Not 1, then: note the decision where the constant is, with who agreed. 2 is a blocker whatever product says: it "
            "takes permissions away from people who were never touched. `frozenset` and a bounded cache settle 2 and 3 in "
            "four lines.",
        ),
        turn(
            "New push is up. Look again.",
            Reply(
                calls=(
                    call(
                        "get_file",
                        "TTL_S = 300  # agreed with product (M. Okafor), revocations may lag\n_cache: TTLCache[int, "
                        "frozenset[str]] = TTLCache(maxsize=50_000, ttl=TTL_S)\n",
                        path="auth/permissions.py",
                        commit="b61fd02",
                    ),
                    call("comment", "comment 1 posted on auth/permissions.py:3", line=3, text="Thanks: 2 and 3 are settled."),
                ),
            ),
            "Settled. One question left, no blocker: 50,000 entries with 1.2 million users means a hit rate worth measuring "
            "before you call it a cache.",
        ),
    ),
)

RUST_PORT = Story(
    name="tokenizer-port",
    agent="porter",
    wire="responses",
    model="gpt-5.4",
    system="You port a Python tokenizer to Rust, module by module. Every step keeps the Python tests green through the bindings.",
    tools={"shell": "Run a command in the sandbox.", "apply_patch": "Apply a patch."},
    turns=(
        turn(
            "Next module: normalize.py. Start with a benchmark so that we know what we win.",
            Reply(
                thinking="Measure first: the corpus has German and Chinese texts; NFKC dominates.",
                calls=(
                    call(
                        "shell",
                        "normalize: 41.2 MB/s (de), 18.7 MB/s (zh), 55.0 MB/s (en)\n",
                        command=["python", "-m", "bench.normalize"],
                    ),
                ),
                trouble="slow",
            ),
            "Baseline: 55 MB/s English, 41 German, 18.7 Chinese. Chinese is slowest because `unicodedata.normalize` runs "
            "over every character although 99.6 % are already NFC. A quick check alone should win a factor of five there.",
        ),
        turn(
            "Do the quick check in Rust, nothing else yet.",
            Reply(
                calls=(
                    call(
                        "apply_patch",
                        "patched 2 files (+64 -3)",
                        patch="*** src/normalize.rs\n+pub fn is_nfc_quick(text: &str) -> IsNormalized",
                    ),
                    call("shell", "running 212 tests\ntest result: ok. 212 passed; 0 failed\n", command=["cargo", "test", "-q"]),
                ),
            ),
            "Done: 212 tests pass. New figures: 61 MB/s English, 58 German, 97 Chinese. 例如「東京」や「北京」like these no "
            "longer leave the fast path.",
        ),
        turn(
            "Does 'Å' (U+212B) still become 'Å' (U+00C5)?",
            Reply(
                'Yes. The quick check answers *maybe* for U+212B, so it takes the slow path: `"\\u212b"` → '
                '`"\\u00c5"`. There is a test for it and for Hangul: 한글 in jamo and composed give the same tokens.',
                trouble="cut",
            ),
        ),
    ),
)

STORIES = (FLAKY_TEST, MIGRATION, RESEARCH, SUB_POSTGRES, SUB_REDIS, SUB_NATS, REVIEW, RUST_PORT)
