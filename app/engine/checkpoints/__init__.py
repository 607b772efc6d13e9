"""Weights on disk and in memory: which files, which formats fit, how they are read.

Start with load.py (a whole model) or load_quantized.py (int8 and int4, tensor by tensor).
"""
