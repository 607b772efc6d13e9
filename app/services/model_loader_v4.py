"""The model of the V4 summaries, loaded on first use (S0.11 to S0.15, C24).

`ModelServiceV4.get_model()` returns (model, tokenizer) and
`ModelServiceV4.stream_generation(prompt, **options)` is a synchronous generator of text: whoever
replaces that method replaces what the V4 endpoints stream. Both are the methods of `ModelService`.
"""

from __future__ import annotations

from app.engine.local.model_service import ModelService


class ModelServiceV4(ModelService):
    """`V4_MODEL_ID`: a class-level singleton with weights of its own."""
