"""Precis: one server that turns a URL into a structured summary while you watch.

Start with main.py (the application), then api/ for a path, services/ for what it does.
"""
