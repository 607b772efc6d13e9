"""What holds for every test: no setting comes from the shell or from a `.env` of the folder."""

from __future__ import annotations

import os

from app.core.config import Settings
from app.core.logging import configure_logging

for _name in Settings.model_fields:
    os.environ.pop(_name.upper(), None)
Settings.model_config["env_file"] = None

# As every application does, so that a test sees log lines whether or not one was built before it.
configure_logging("info", "console")
