"""What crosses the wire as JSON, checked by pydantic.

Start with summary_v4.py.
"""
