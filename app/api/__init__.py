"""The HTTP surface, one file an audience. Routes read and answer requests; they decide nothing."""
