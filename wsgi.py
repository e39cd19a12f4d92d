"""The WSGI entry point: reads the environment, makes the application, nothing else."""

import os

from app import create_app
from app.config import read_config

app = create_app(read_config(os.environ))
