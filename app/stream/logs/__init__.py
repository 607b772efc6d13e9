"""The implementations of the event log: memory, SQLite, Redis.

Start with ../log.py (the protocol); open.py turns a URL into a log; write_through.py is the base
of the durable ones. A new kind of log is one module here and one branch in open.py.
"""
