"""Sessions: generators that write events to a log, and cursors that follow it.

Start with sessions.py (starting, cancelling), then session.py (one run), followers.py (reading),
maintenance.py (what runs beside the requests), sse.py (events as bytes). log.py is the protocol of
a log; logs/ holds its implementations.
"""
