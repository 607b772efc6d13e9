"""Upstream servers that speak OpenAI's API.

Start with engine.py; replicas.py chooses a server, chunks.py reads its stream.
"""
