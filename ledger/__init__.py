"""The ledger and its log: what an entry may be, and how anyone checks it. See README.md."""
