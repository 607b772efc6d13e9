"""The structured summary, as its own JSON text or as patches of its fields (contract 1).

Start with endpoints.py; wire.py has the events.
"""
