"""The row of a transaction, as front ends know it."""

from proxy_core.transaction_row import Outcome, State, TransactionRow

__all__ = ["Outcome", "State", "TransactionRow"]
