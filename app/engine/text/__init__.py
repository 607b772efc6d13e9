"""Plain tools for text: sentences, JSON text, what a model wrote taken apart.

Start with output_parser.py.
"""
