"""Article jobs (contract 4): start one, watch it, look at it, cancel it.

Start with endpoints.py; wire.py has the events, state.py folds them.
"""
