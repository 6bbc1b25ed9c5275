# vlfer on the CPU: the web app and the HTTP API. Build: docker build -t vlfer .
# Run: docker run --rm -p 127.0.0.1:8000:8000 -e VLFER_API_KEYS=$(openssl rand -hex 24) --read-only --tmpfs /tmp vlfer
FROM python:3.12-slim AS build
RUN pip install --no-cache-dir uv
WORKDIR /src
COPY pyproject.toml README.md LICENSE constraints.txt ./
COPY vlfer vlfer
COPY prompts prompts
COPY adapters adapters
COPY configs configs
# torch for the CPU alone: the usual wheels bring gigabytes of CUDA
RUN uv venv /opt/vlfer \
 && uv pip install --python /opt/vlfer/bin/python --torch-backend cpu -c constraints.txt ".[app]" \
 # MediaPipe asks for the OpenCV with windows, which needs libraries that a bare system lacks
 && uv pip uninstall --python /opt/vlfer/bin/python opencv-contrib-python \
 && uv pip install --python /opt/vlfer/bin/python --reinstall --no-deps opencv-contrib-python-headless

FROM python:3.12-slim
RUN useradd --create-home --uid 10001 vlfer
COPY --from=build /opt/vlfer /opt/vlfer
ENV PATH=/opt/vlfer/bin:$PATH VLFER_CACHE=/tmp/vlfer HOME=/tmp PYTHONUNBUFFERED=1
USER vlfer
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:8000/readyz', timeout=5)"]
CMD ["vlfer", "serve", "--host", "0.0.0.0", "--port", "8000"]
