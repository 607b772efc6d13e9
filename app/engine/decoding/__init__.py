"""The loop over a local model: one thread, one forward a step for every sequence.

Start with decoder.py (the loop), then scheduler.py (what a step computes), sequence.py (one request
in it) and generate.py (the entry, and transformers' loop for what the decoder does not run).
"""
