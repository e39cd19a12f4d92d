"""Other rules over acts that were really credited, beside the rules in force; nothing is written.

What is replayed, in this order: (1) `life` reads a person's entries of the window; (2) `replay`
runs their acts through both rule sets, with caps, groups and rules chained from the counters as
they stood when the window began; (3) `wallet` expires and spends; (4) `tally` sums; (5) `line`
pays, everybody's acts in the order they arrived, out of budgets that may run dry; (6) `result`
says it all as JSON. `run` divides the people among processes. The rules in force are replayed too,
and held against the ledger act by act: what differs is told in every result.
"""
