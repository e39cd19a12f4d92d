"""The entry point: reads the environment, makes the application, nothing else.

`app` is for a WSGI server behind a proxy that buffers requests, `door` for granian's RSGI.
"""

import os

from app.api.frame import REGISTRY
from app.application import create_app
from app.config import read_config
from app.cores import bring
from app.door import Door
from app.turns import Turns

_config = read_config(os.environ)
app = create_app(_config)
_turns = Turns(_config.data_dir / "turns")
door = Door(app, app.extensions[REGISTRY], _turns, _config.threads, _config.intake)
bring(app.extensions["puhui"].engine, _turns.left)
