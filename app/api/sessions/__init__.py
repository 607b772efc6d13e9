"""Sessions of any kind (contract 3): replay one, follow it, cancel it.

Start with endpoints.py.
"""
