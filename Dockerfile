# pixelq in a slim image, not as root: docker build -t pixelq . && docker run --rm -it -v pixelq-runs:/home/pixelq/runs pixelq
# For an NVIDIA GPU: --build-arg TORCH_INDEX=https://pypi.org/simple, and docker run --gpus all.

FROM python:3.11-slim AS wheel
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY pyproject.toml setup.py MANIFEST.in README.md CHANGELOG.md LICENSE constraints.txt ./
COPY src src
RUN pip wheel --no-cache-dir --no-deps -w /wheels .

FROM python:3.11-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
COPY constraints.txt /tmp/constraints.txt
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "$(grep '^torch==' /tmp/constraints.txt)"
COPY --from=wheel /wheels /tmp/wheels
RUN pip install --no-cache-dir -c /tmp/constraints.txt /tmp/wheels/*.whl && rm -r /tmp/wheels \
    && useradd --create-home --uid 1000 pixelq && install -d -o pixelq -g pixelq /home/pixelq/runs
USER pixelq
WORKDIR /home/pixelq
VOLUME /home/pixelq/runs
ENTRYPOINT ["pixelq"]
CMD ["train", "fast"]
