"""From a stranger's URL to bytes, without reaching what is not public.

Start with fetch.py; addresses.py says which addresses are public.
"""
