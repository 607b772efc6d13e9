"""From the bytes of a page to an article: text, title, author, date.

Start with article.py.
"""
