"""The ledger: every byte counted once, and the limits decided on it."""
