"""Rewards: a merchant drafts one, an operator opens it, residents see what they may have.

Each module is one verb in its caller's transaction. What an open reward promises stays as it is;
only its stock may grow.
"""
