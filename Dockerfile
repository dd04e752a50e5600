# The page of vtg on a folder of videos; compose.yaml runs it.
#
#   docker build --tag vtground .
#   docker run --rm --init --publish 127.0.0.1:8501:8501 --volume ~/Videos:/videos:ro --volume vtg-library:/library \
#     --volume vtg-cache:/cache vtground
#
# TORCH_INDEX is where pip finds torch: without GPU support by default; for NVIDIA GPUs, name the index of a CUDA
# version that pytorch.org lists and run the container with --gpus all:
#
#   docker build --tag vtground:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .

ARG PYTHON=3.13

FROM python:${PYTHON}-slim AS build
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# A compiler for the engine of vtg/r2/kernels; it stays in this stage.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
RUN python -m venv /opt/vtg
ENV PATH=/opt/vtg/bin:$PATH
# hadolint ignore=DL3013
RUN pip install --no-cache-dir --index-url "$TORCH_INDEX" "torch>=2.4" torchvision
WORKDIR /src
COPY pyproject.toml setup.py MANIFEST.in README.md LICENSE ./
COPY streamlit_app streamlit_app
COPY vtg vtg
RUN pip install --no-cache-dir .

FROM python:${PYTHON}-slim
COPY --from=build /opt/vtg /opt/vtg
# The library and what is downloaded lie in volumes, which take over the owner of these folders.
RUN useradd --uid 10001 --user-group --home-dir /cache --create-home vtg \
    && mkdir /library /videos \
    && chown vtg:vtg /library
ENV HOME=/cache \
    PATH=/opt/vtg/bin:$PATH \
    VTG_LIBRARY=/library/vtg
USER 10001
WORKDIR /library
VOLUME ["/library", "/cache"]
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["vtg"]
CMD ["ui", "--host", "0.0.0.0", "--no-browser", "--root", "/videos"]
