# The gateway as an image: docker build --tag decorum . The first stage builds, the second runs and has no compiler,
# no source and nothing to install with but what Python brings.
FROM python:3.11-slim-bookworm AS build
WORKDIR /src
ENV PIP_CONSTRAINT=/src/constraints.txt PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY gateway gateway
COPY providers providers
COPY ratelimit ratelimit
# Compiled here, since nothing can be written where it runs.
RUN pip wheel --no-deps --wheel-dir /wheels . \
    && python -m venv --without-pip /opt/decorum \
    && pip --python /opt/decorum/bin/python install --compile "$(echo /wheels/decorum-*.whl)[fast]"

FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="Decorum" \
      org.opencontainers.image.description="The multichannel message gateway that knows when not to send" \
      org.opencontainers.image.licenses="Apache-2.0"
# /data is for SQLite alone: a volume must be mounted there.
RUN groupadd --gid 10001 decorum \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /data --shell /usr/sbin/nologin decorum \
    && install --directory --owner 10001 --group 10001 /data
COPY --from=build /opt/decorum /opt/decorum
ENV PATH=/opt/decorum/bin:$PATH PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 DECORUM_CONFIG=/etc/decorum/gateway.yaml
WORKDIR /data
# By number, so that Kubernetes can tell that it is not root.
USER 10001:10001
EXPOSE 8080 8081
# Not by a proxy that the environment may name, as urllib would.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8080, timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["decorum"]
CMD ["serve"]
