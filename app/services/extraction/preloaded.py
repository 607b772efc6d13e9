"""What reading a page needs, loaded once by importing this: for the process that workers come from.

The model that tells languages takes a second to load, which no page should wait for.
"""

from __future__ import annotations

import py3langid

from app.services.extraction import article, html_article
from app.services.extraction.pdf import text

__all__ = ["article", "html_article", "text"]

py3langid.classify("The first text loads the model.")
