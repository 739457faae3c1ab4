#!/bin/sh
# The browser tests want a real Chromium. Installed here where that is possible without asking:
# as root, by the system's own package manager. Elsewhere the tests say what to run.
set -eu
if [ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null
then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Chromium for the browser tests (apt-get install chromium) ..."
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends chromium >/dev/null
else
    echo "No Chromium: the browser tests will fail. Install it (apt-get install chromium)," \
         "or set CHROMIUM to its path." >&2
fi
