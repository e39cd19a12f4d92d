"""The schema's history, numbered by hand. Runs as the owner role; the program itself owns nothing."""
