"""The chat: from a checked body to the engine's request, and from its items to neutral pieces.

Start with request.py.
"""
