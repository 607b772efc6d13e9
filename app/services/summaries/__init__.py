"""Summaries: what is read, how the model is asked, how its object becomes patches.

Start with summarizer.py.
"""
