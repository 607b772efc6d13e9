"""PDF files: `text.py` reads a file, `lines.py` makes paragraphs of what stands at places."""
