"""From messages to a prompt: chat templates, tools, what fits the context.

Start with fit.py.
"""
