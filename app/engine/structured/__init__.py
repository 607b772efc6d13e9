"""Output held to a schema: grammar, budget, the shortest completion.

Start with grammar.py.
"""
