# hiera-video with all extras but torchcodec, ray and wandb.
#   CPU     docker build -t hiera-video .
#   CUDA    docker build -t hiera-video:cuda --build-arg BASE=nvidia/cuda:13.2.0-base-ubuntu24.04 .
#   run     docker run --rm -v "$PWD:/data" hiera-video predict clip.mp4 --run runs/x
#   GPU     docker run --rm --gpus all --ipc host -v "$PWD:/data" hiera-video:cuda train --cfg my.yaml
# --ipc host: batches travel from the loader's workers through shared memory.
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG EXTRAS=all

# gcc: Triton compiles its launchers. The CUDA images have no Python. Versions are the base image's.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev \
    && if ! command -v python3; then apt-get install -y --no-install-recommends python3 python3-venv; fi \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/hiera-video
COPY pyproject.toml setup.py constraints.txt README.md LICENSE ./
COPY hiera_video hiera_video
COPY configs configs
COPY benchmarks benchmarks
RUN python3 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

ENV PATH=/opt/venv/bin:$PATH
RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /data
ENTRYPOINT ["hiera-video"]
CMD ["--help"]
