"""The engine without a model: sentences of the article itself, ranked and put together.

Start with engine.py, then ranking.py and composition.py.
"""
