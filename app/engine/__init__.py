"""Models behind one protocol: whatever writes text is an `Engine` with one `generate`.

Start with base.py (the protocol and the request), then registry.py (roles); local/, remote/ and
extractive/ are the engines, the other folders are what the local one is made of.
"""
