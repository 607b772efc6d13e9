"""What every room may use: settings, errors, logging, and what each request passes.

Start with errors.py; middleware.py, security.py and rates.py stand before every endpoint.
"""
