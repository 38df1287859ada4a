FROM python:3.11-slim AS build
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY proxy_core proxy_core
COPY luthien_tui luthien_tui
RUN python -m venv /opt/luthien && /opt/luthien/bin/pip install --no-cache-dir .

FROM python:3.11-slim
COPY --from=build /opt/luthien /opt/luthien
RUN useradd --create-home --uid 10001 luthien && install -d -o luthien -m 0700 /var/lib/luthien
USER luthien
ENV PATH=/opt/luthien/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    LUTHIEN_DATA_DIR=/var/lib/luthien \
    LUTHIEN_SERVER__HOST=0.0.0.0
VOLUME /var/lib/luthien
EXPOSE 4000
HEALTHCHECK --interval=10s --timeout=3s CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:4000/health/readiness', timeout=2)"]
ENTRYPOINT ["luthien"]
CMD ["--no-ui"]
