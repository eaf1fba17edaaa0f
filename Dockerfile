# The image of everything: `chainrule server`, `worker`, `submit` and the rest. docs/compose.md tells how to use it.
#
#   docker build -t chainrule .
#
# It builds without a network but for the package index that pip is set to. The locks (make lock) name every package that
# goes in, with its hashes.

FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build
# strip: the libraries of pyarrow's wheel come with symbols that only a linker reads, 25 MB of them.
RUN apt-get update -qq && apt-get install -y -qq --no-install-recommends binutils >/dev/null
COPY deploy/image/build.lock deploy/image/requirements.lock deploy/image/prune.py ./
# Without pip and compiled modules: the first isn't needed, the second come last, when all that goes has gone.
RUN python -m venv --without-pip /opt/chainrule \
 && pip --python /opt/chainrule/bin/python install --no-compile --require-hashes -r requirements.lock \
 && pip install --require-hashes -r build.lock \
 && find /opt/chainrule -path '*/site-packages/pyarrow/*.so*' -not -path '*/tests/*' -exec strip --strip-unneeded {} +
COPY LICENSE README.md pyproject.toml ./
COPY chainrule chainrule
COPY engine engine
COPY server server
COPY worker worker
RUN pip wheel --quiet --no-build-isolation --no-deps --wheel-dir dist . \
 && pip --python /opt/chainrule/bin/python install --no-compile --no-index --no-deps dist/*.whl \
 && pip --python /opt/chainrule/bin/python check \
 && /opt/chainrule/bin/python prune.py /opt/chainrule

FROM python:3.11-slim-bookworm
# A number, so that Kubernetes sees that it isn't root. Volumes that are mounted here for the first time get this owner.
RUN mkdir -p /data /jobs /var/lib/chainrule /run/chainrule /certificates /issued/server /issued/worker /issued/client \
 && chown -R 10001:10001 /var/lib/chainrule /run/chainrule /certificates /issued
COPY deploy/image/issue-certificates deploy/image/worker-is-joined /usr/local/bin/
COPY --from=build /opt/chainrule /opt/chainrule
ENV PATH=/opt/chainrule/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    CHAINRULE_HOME=/var/lib/chainrule
USER 10001:10001
WORKDIR /tmp
EXPOSE 50051
ENTRYPOINT ["chainrule"]
CMD ["--help"]
