"""HTTP only: from requests to sessions, and from events to bytes. Runs no engine.

Start with deps.py (what endpoints are handed) and resume.py (how a session is answered with).
"""
