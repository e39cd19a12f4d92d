"""The schema's history, numbered by hand. Runs as the owner; the program owns nothing."""
