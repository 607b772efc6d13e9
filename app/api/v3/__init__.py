"""The prose summary of the first clients (contract 1).

Start with endpoints.py; wire.py has the events.
"""
