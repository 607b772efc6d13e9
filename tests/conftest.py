"""What holds for every test: no setting comes from the shell or from a `.env` of the folder."""

from __future__ import annotations

import os

from app.core.config import Settings

for _name in Settings.model_fields:
    os.environ.pop(_name.upper(), None)
Settings.model_config["env_file"] = None
