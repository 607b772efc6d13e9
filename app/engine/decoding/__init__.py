"""The loop over a local model: one thread, one forward a step for every sequence.

Start with decoder.py (the loop), then sequence.py (one request in it) and generate.py (the loop of
transformers, for what the decoder does not run).
"""
