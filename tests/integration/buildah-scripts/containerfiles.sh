#!/bin/sh
# Containerfiles in a shell loop, with arguments and targets.
set -e
for flavour in plain extra; do
    buildah build-using-dockerfile --layers --build-arg FLAVOUR=$flavour --target $flavour -t localhost/app:$flavour -f - . <<'END' > /dev/null 2>&1
ARG FLAVOUR=none
FROM localhost/busybox AS plain
ARG FLAVOUR
COPY message.txt /message
RUN echo "flavour $FLAVOUR" > /flavour
FROM plain AS extra
RUN cat /flavour /message > /both
LABEL flavour=extra
END
done
buildah tag localhost/app:extra localhost/result
buildah images --filter reference='localhost/app:*' --format '{{.Tag}}' | sort
test "$(buildah images -q localhost/app:extra)" = "$(buildah images -q localhost/result)"
buildah rmi localhost/app:plain localhost/app:extra > /dev/null
