# Two images from one file: `docker build --target service .` and `docker build --target worker .`
# The image of the service has no torch, numba or ortools, because the service does not solve.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim AS build
# pip reads these build arguments as environment variables: for a mirror, or for wheels of torch without CUDA, for
# workers without a GPU.
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
# Without torch (WORKER_EXTRAS=worker) the image is far smaller; but jobs with updates, or with the solvers greedy and
# sinkhorn, fail on such a worker, and it cannot measure kernels or use a GPU.
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
# Cache of compiled kernels; on a volume it is kept when the container is replaced.
ENV NUMBA_CACHE_DIR=/cache/numba
VOLUME /cache
CMD ["python", "-P", "-m", "masksmith_worker"]
