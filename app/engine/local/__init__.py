"""Models that run in this process: one model, its queue, its loading.

Start with engine.py (the protocol), then lazy_model.py (loading on first use) and preflight.py
(does it fit).
"""
