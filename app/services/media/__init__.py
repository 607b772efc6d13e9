"""Images and videos of a request: fetched, measured, decoded, made small.

Start with reader.py.
"""
