"""SQL lives here and only here. A store function takes a transaction and never commits it."""
