"""SQL lives here and only here. A store function takes the caller's transaction and never commits."""
