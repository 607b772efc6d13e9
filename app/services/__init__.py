"""What the server does, without HTTP and without engines of its own.

Start with summaries/ or chat/; article_scraper.py turns a URL into an article.
"""
