"""Puhui's service: Flask, SQL, Redis and tokens live here and nowhere else."""
