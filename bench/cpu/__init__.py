"""Phi-3-mini on this CPU, against the plan as written and llama.cpp: `python -m bench.cpu`.

Start with __main__.py.
"""
