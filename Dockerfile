# CPU image for a Hugging Face Space or any Docker host.
FROM python:3.11-slim

ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PIP_NO_CACHE_DIR=1 \
    HOST=0.0.0.0 PORT=7860 HF_HOME=/home/user/.cache/huggingface

# The int8 and int4 kernels are compiled for the processor that is found at start.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 user
WORKDIR /home/user/precis

COPY requirements.txt requirements-ocr.txt ./
# uv knows where the CPU build of torch is; pip's default on Linux brings CUDA.
RUN pip install "uv>=0.9" \
    && uv pip install --system --torch-backend cpu "torch>=2.13,<2.14" \
    && uv pip install --system --torch-backend cpu -r requirements.txt -r requirements-ocr.txt

COPY --chown=user app app
COPY --chown=user pyproject.toml env.hf ./
# Settings are read from .env in the working folder; variables of the container win over it.
RUN cp env.hf .env

USER user
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import os,urllib.request as u; u.urlopen(f'http://127.0.0.1:{os.environ[\"PORT\"]}/health', timeout=3)"]
CMD ["python", "-m", "app"]
