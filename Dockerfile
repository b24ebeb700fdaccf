# robustscanner-serve for CPUs: docker build -t robustscanner . && docker run -p 127.0.0.1:8000:8000 robustscanner
FROM python:3.12-slim
COPY . /src
RUN pip install --no-cache-dir '/src[cpu,serve]' && rm -rf /src
USER 65534
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/health/ready', timeout=4)"]
ENTRYPOINT ["robustscanner-serve", "--host", "0.0.0.0"]
