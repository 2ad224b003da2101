# docker build -t isgseg .                              for CPUs
# docker build -t isgseg:cuda --build-arg TORCH=cu126 . for NVIDIA GPUs; run it with --gpus all
# docker run --rm -u "$(id -u):$(id -g)" -v "$PWD:/work" isgseg isgseg-predict volumes=cells/ output_dir=labels
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# Which build of PyTorch: cpu, or the CUDA that the machines' driver knows, such as cu126.
ARG TORCH=cpu

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib

WORKDIR /isgseg
# PyTorch first: it is 1 to 6 GB, and stays cached while isgseg changes.
RUN pip install "torch>=2.8" "torchvision>=0.23" --index-url "https://download.pytorch.org/whl/${TORCH}"
COPY pyproject.toml README.md LICENSE CHANGELOG.md constraints.txt ./
COPY src src
COPY conf conf
RUN grep --invert-match --extended-regexp "^(torch|torchvision|nvidia-.*|triton)==" constraints.txt > /tmp/constraints.txt \
    && pip install --constraint /tmp/constraints.txt ".[report]" \
    && isgseg-predict --help > /dev/null

WORKDIR /work
CMD ["isgseg-predict", "--help"]
