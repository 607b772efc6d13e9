"""Where events are kept: memory, SQLite, Redis.

Start with ../log.py (the protocol); open.py turns a URL into a log.
"""
