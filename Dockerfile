# The page and its HTTP interface: no torch, no compiler, no root.
#
#   docker build -t image2sentence .
#   docker run --rm -v "$PWD/photos:/photos:ro" -v gallery:/gallery image2sentence index /photos --gallery /gallery
#   docker run --rm -p 127.0.0.1:8000:8000 -e IMAGE2SENTENCE_TOKEN -v "$PWD/photos:/photos:ro" -v gallery:/gallery image2sentence
#
# EXTRAS=server,milvus for galleries in Milvus.
FROM python:3.11-slim AS build
ARG EXTRAS=server
WORKDIR /source
COPY pyproject.toml hatch_build.py README.md LICENSE NOTICE ./
COPY src src
COPY js/src js/src
RUN python -m venv /opt/image2sentence \
 && /opt/image2sentence/bin/pip install --no-cache-dir ".[${EXTRAS}]"

FROM python:3.11-slim
LABEL org.opencontainers.image.title="image2sentence" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/image2sentence /opt/image2sentence
RUN useradd --create-home --uid 10001 searcher \
 && install -d -o searcher /gallery
ENV PATH=/opt/image2sentence/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    IMAGE2SENTENCE_GALLERY=/gallery
USER 10001
VOLUME /gallery
EXPOSE 8000
# uvicorn finishes running requests on SIGTERM, within ten seconds.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/ready', timeout=2)"]
ENTRYPOINT ["image2sentence"]
CMD ["serve", "--host", "0.0.0.0"]
