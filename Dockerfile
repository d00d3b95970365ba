# Two images from one file: `docker build --target service .` and `docker build --target worker .`
# The service's has no torch, numba or ortools: it plans and serves, it never solves.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# Build arguments are environment variables while building, and pip reads these three: a mirror, or wheels of torch
# without CUDA for workers that have no GPU.
ARG PIP_INDEX_URL
ARG PIP_EXTRA_INDEX_URL
ARG PIP_TRUSTED_HOST
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/masksmith
ENV PATH=/opt/masksmith/bin:$PATH
WORKDIR /src
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY solver solver
COPY wire wire
COPY state state
COPY service service
COPY worker worker
COPY client client

FROM build AS build-service
RUN pip install -c constraints.txt '.[service,cli]'

FROM build AS build-worker
# Without torch (WORKER_EXTRAS=worker) the image is far smaller; such a worker refuses jobs with the solvers greedy and
# sinkhorn and those with updates, and cannot measure kernels or use a GPU.
ARG WORKER_EXTRAS=worker,torch
RUN pip install -c constraints.txt ".[${WORKER_EXTRAS}]"

FROM python:${PYTHON}-slim AS runtime
RUN useradd --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin masksmith \
    && mkdir -p /data/store /cache/numba \
    && chown -R masksmith:masksmith /data /cache
ENV PATH=/opt/masksmith/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    HOME=/tmp \
    MASKSMITH_STORE_URL=/data/store
WORKDIR /tmp
USER masksmith
VOLUME /data

FROM runtime AS service
COPY --from=build-service /opt/masksmith /opt/masksmith
ENV MASKSMITH_HOST=0.0.0.0
EXPOSE 8000
CMD ["python", "-P", "-m", "masksmith_service"]

FROM runtime AS worker
COPY --from=build-worker /opt/masksmith /opt/masksmith
# Kernels are compiled when first used and kept here; on a volume they survive the container.
ENV NUMBA_CACHE_DIR=/cache/numba
VOLUME /cache
CMD ["python", "-P", "-m", "masksmith_worker"]
