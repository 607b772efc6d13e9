"""Models that run in this process.

From the top down: engine.py (the protocol, the queue in front), run.py (one generation in its
thread), model_service.py and vision_model.py (a prompt becomes text), lazy_model.py (loading on
first use), availability.py (why a model cannot be had). preflight.py refuses what cannot be done.
"""
