"""llama.cpp's own server, as xllamacpp carries it: PORT MODEL.gguf. Runs in the peer's environment."""

import os
import signal
import sys

import xllamacpp

CONTEXT, SLOTS = 4096, 32


def main(port: str, model: str) -> None:
    parameters = xllamacpp.CommonParams()
    parameters.model.path = model
    parameters.model_alias = {"smollm2"}
    parameters.n_parallel = SLOTS
    parameters.n_ctx = SLOTS * CONTEXT
    parameters.cpuparams.n_threads = os.cpu_count()
    parameters.cpuparams_batch.n_threads = os.cpu_count()
    parameters.cont_batching = True
    parameters.n_gpu_layers = 0
    parameters.hostnames = ["127.0.0.1"]
    parameters.port = int(port)
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    signal.pause()


main(*sys.argv[1:])
