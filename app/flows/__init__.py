"""One file a verb. A flow is a recipe: its stages in order, one transaction, one commit."""
