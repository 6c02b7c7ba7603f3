# Baton in an image: built by the same scripts as everywhere, run by a user without rights.
#   docker build -t baton .
#   docker run --network host -v ./baton.toml:/etc/baton/baton.toml:ro -v baton-data:/var/lib/baton baton
FROM debian:12-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3 python3-venv python3-dev ca-certificates
WORKDIR /opt/baton
COPY scripts scripts
COPY pyproject.toml requirements.lock README.md LICENSE ./
COPY baton baton
COPY book book
COPY config config
COPY facts facts
COPY meter meter
COPY portal portal
COPY router router
COPY suppression suppression
COPY telemetry telemetry
RUN scripts/bootstrap --build-only --copy

FROM debian:12-slim
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 ca-certificates libssl3 libopus0 libsrtp2-1 \
      libsamplerate0 libuuid1 \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --home-dir /var/lib/baton --create-home --shell /usr/sbin/nologin baton
COPY --from=build /opt/baton/.venv /opt/baton/.venv
ENV PATH=/opt/baton/.venv/bin:$PATH PYTHONUNBUFFERED=1
USER baton
WORKDIR /var/lib/baton
VOLUME /var/lib/baton
# SIP over UDP and TCP, over TLS, and metrics. RTP takes the range of router.rtp_port_min to rtp_port_max: host network.
EXPOSE 5060/udp 5060/tcp 5061/tcp 9464/tcp
STOPSIGNAL SIGTERM
# The page of baton/process/health.py; with another metrics.port in the file set BATON_METRICS__PORT as well.
HEALTHCHECK --interval=10s --timeout=6s --start-period=60s --retries=3 \
  CMD ["python3", "-c", "import os, urllib.request as r; \
r.urlopen('http://127.0.0.1:%s/live' % os.environ.get('BATON_METRICS__PORT', '9464'), timeout=5)"]
ENTRYPOINT ["baton"]
CMD ["serve", "/etc/baton/baton.toml"]
