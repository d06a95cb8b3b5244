#!/bin/bash
# A search on a few machines by plain ssh: a server here, a worker on each machine.
#
#     examples/search/ssh.sh node-2 node-3 node-4
#
# Nothing is shared but the server's port: recipe and data are copied, results come back through the study. An address of
# the data in the recipe has to be good on every machine. Run the same line again after any trouble: it goes on.
set -euo pipefail

port=13000
trials=500
here="$(hostname -f)"

tsdistill search-server --storage sqlite:///studies.db --host 0.0.0.0 --port "$port" &
server=$!
trap 'kill -TERM "$server"; wait "$server"' EXIT
sleep 10

workers=()
for machine in "$@"; do
    scp -q recipe.toml "$machine:search-recipe.toml"
    ssh -o ServerAliveInterval=30 "$machine" \
        tsdistill search search-recipe.toml --storage "grpc://$here:$port" --name load --trials "$trials" \
        --workers 4 --out search-out --quiet &
    workers+=($!)
done
failed=0
for worker in "${workers[@]}"; do
    wait "$worker" || failed=1 # the others go on without it
done

tsdistill search status --storage "grpc://$here:$port" --name load
tsdistill search best --storage "grpc://$here:$port" --name load --file best.toml
exit "$failed"
