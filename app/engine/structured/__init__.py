"""Output held to a schema: grammar, budget, the shortest completion.

Start with grammar.py (the logits processor), then completion.py (how a half-written object ends);
schema_grammar.py compiles schemas.
"""
