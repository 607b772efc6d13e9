"""The article job: outline, sections, style, with progress at every step.

Start with writer.py.
"""
