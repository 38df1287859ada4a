"""Who may send, how much of it, and what it may cost.

Buckets, accounts, rules and estimates are pure: values and the clock go in. What waits or stores stands in `client_keys`,
`ledgers` and `limiter`.
"""
