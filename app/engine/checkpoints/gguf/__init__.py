"""A GGUF file as a checkpoint: one file with weights, sizes, tokenizer and chat template.

Start with header.py (what the file holds) or model.py (a whole model).
"""
