#!/usr/bin/env python3
"""One training step of a network with dropout: this crate, PyTorch and JAX, in one run.

    benches/peers/torch_step.py FOLDER [--rounds 9] [--only PyTorch] [--no-torch] [--no-install]
                                 [--optimiser adamw] [--chart docs/step_times.svg]

784-1024-1024-10, ReLU, mini-batches of 128, dropout 0.2 on the input and 0.5 after the hidden
layers, cross-entropy, SGD with momentum 0.9 and learning rate 0.05, or AdamW with learning rate 0.001
and weight decay 0.01, float32, on 1 and on 2 threads; ours once more with whole units dropped.

FOLDER gets a virtual environment with torch, jax, optax and numpy from PyPI. PyPI's Linux wheel of torch is
made for CUDA: it runs on a machine without a GPU, but does not load without NVIDIA's libraries, which
come with it: 3 GB to download, 6 GB in the folder. With --no-torch they are left out, and PyTorch runs
only if the folder's environment already has a torch (a CPU wheel from another index, say).
torch.compile needs a C++ compiler.

Each peer runs in its best setting: PyTorch eagerly with the fused optimiser and compiled; JAX compiled
as a whole, with donated buffers, with its default generator and with the faster `rbg`. A peer is a
process that waits between its turns; all take turns within a round, so that a slow moment hits all
of them. A ratio is the median of the rounds' ratios, a time the smallest one seen.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from datetime import date
from pathlib import Path

import step_chart

SIZES = (784, 1024, 1024, 10)
BATCH = 128
INPUT_RATE, HIDDEN_RATE = 0.2, 0.5
LEARNING_RATE, MOMENTUM = 0.05, 0.9
ADAMW_RATE, WEIGHT_DECAY = 1e-3, 0.01
OPTIMISERS = {"sgd": "SGD with momentum", "adamw": "AdamW"}
# A turn of a peer: at least so many steps, and about so many seconds.
LEAST_STEPS, TURN_SECONDS = 5, 0.5

TITLE = "A training step with dropout and {}: 784-1024-1024-10, batch 128, float32"

# Name of a peer: the worker and its variant.
PEERS = {
    "PyTorch, eager": ("torch", "eager"),
    "PyTorch, compiled": ("torch", "compile"),
    "JAX, threefry": ("jax", "threefry2x32"),
    "JAX, rbg": ("jax", "rbg"),
}


def torch_step(variant, threads, optimiser):
    """A function that trains one step and returns the loss."""
    import torch
    from torch import nn
    from torch.nn import functional as F

    torch.set_num_threads(threads)
    torch.manual_seed(7)
    layers = [nn.Linear(a, b) for a, b in zip(SIZES, SIZES[1:])]
    parameters = [p for layer in layers for p in layer.parameters()]
    if optimiser == "sgd":
        rule = torch.optim.SGD(parameters, lr=LEARNING_RATE, momentum=MOMENTUM, fused=True)
    else:
        rule = torch.optim.AdamW(parameters, lr=ADAMW_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    x = torch.rand(BATCH, SIZES[0]) * 2 - 1
    labels = torch.arange(BATCH) * 7 % 10

    def loss_of(x):
        h = F.dropout(x, INPUT_RATE)
        for layer in layers[:-1]:
            h = F.dropout(F.relu(layer(h)), HIDDEN_RATE)
        return F.cross_entropy(layers[-1](h), labels)

    if variant == "compile":
        loss_of = torch.compile(loss_of)

    def step():
        rule.zero_grad(set_to_none=True)
        loss = loss_of(x)
        loss.backward()
        rule.step()
        return loss.item()

    return step, torch.__version__


def jax_step(variant, threads, optimiser):
    """A function that trains one step and returns the loss."""
    # XLA's CPU client has as many threads as the process may use CPUs.
    cpus = sorted(os.sched_getaffinity(0))[:threads]
    os.sched_setaffinity(0, cpus)
    os.environ["JAX_PLATFORMS"] = "cpu"
    import jax
    import optax
    from jax import numpy as jnp

    jax.config.update("jax_default_prng_impl", variant)
    key, *keys = jax.random.split(jax.random.key(7), len(SIZES) + 1)
    shapes = list(zip(SIZES, SIZES[1:]))
    weights = [
        (jax.random.normal(k, s) * (2 / s[0]) ** 0.5, jnp.zeros(s[1])) for k, s in zip(keys, shapes)
    ]
    rule = {
        "sgd": optax.sgd(LEARNING_RATE, momentum=MOMENTUM),
        "adamw": optax.adamw(ADAMW_RATE, weight_decay=WEIGHT_DECAY),
    }[optimiser]
    x = jax.random.uniform(keys[-1], (BATCH, SIZES[0]), minval=-1)
    labels = jnp.arange(BATCH) * 7 % 10

    def dropout(x, rate, key):
        return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)

    def loss_of(weights, keys, x):
        h = dropout(x, INPUT_RATE, keys[0])
        for (w, b), key in zip(weights[:-1], keys[1:]):
            h = dropout(jax.nn.relu(h @ w + b), HIDDEN_RATE, key)
        w, b = weights[-1]
        return -jnp.mean(jax.nn.log_softmax(h @ w + b)[jnp.arange(BATCH), labels])

    def update(weights, state, key, x):
        key, *keys = jax.random.split(key, len(SIZES))
        loss, gradient = jax.value_and_grad(loss_of)(weights, keys, x)
        changes, state = rule.update(gradient, state, weights)
        return optax.apply_updates(weights, changes), state, key, loss

    update = jax.jit(update, donate_argnums=(0, 1, 2))
    state = [weights, rule.init(weights), key]

    def step():
        *state[:], loss = update(*state, x)
        return float(loss)

    return step, jax.__version__


def worker(name, variant, threads, optimiser):
    """Says a line of JSON when it is ready, then one with seconds a step for each line it reads."""
    step, version = {"torch": torch_step, "jax": jax_step}[name](variant, threads, optimiser)
    losses = [step() for _ in range(20)]
    ready = all(loss == loss for loss in losses) and min(losses[-5:]) < losses[0]
    print(json.dumps({"version": version, "ready": ready}), flush=True)
    for _ in sys.stdin:
        start, steps = time.perf_counter(), 0
        while steps < LEAST_STEPS or time.perf_counter() - start < TURN_SECONDS:
            step()
            steps += 1
        print(json.dumps((time.perf_counter() - start) / steps), flush=True)


class Peer:
    """A worker process."""

    def __init__(self, python, name, threads, optimiser):
        environment = dict(os.environ, OMP_NUM_THREADS=str(threads), MKL_NUM_THREADS=str(threads))
        command = [python, __file__, "--worker", *PEERS[name], str(threads), optimiser]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.process = subprocess.Popen(command, env=environment, text=True, **pipes)
        line = self.process.stdout.readline()
        if not line:
            errors = self.process.communicate()[1].strip().splitlines()
            raise RuntimeError(errors[-1] if errors else "ended without a word")
        answer = json.loads(line)
        if not answer["ready"]:
            self.close()
            raise RuntimeError("its loss does not fall")
        self.version = answer["version"]

    def turn(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.stderr.close()
        self.process.wait()


def install(folder, with_torch):
    """The Python of the folder's environment, with all packages that it lacks."""
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    packages = ["jax", "optax", "numpy", *(["torch"] if with_torch else [])]
    subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
    return python


def our_bench():
    """The bench's executable, built."""
    command = ["cargo", "bench", "-p", "fused-dropout-benches", "--bench", "train_step"]
    command += ["--no-run", "--message-format=json"]
    root = Path(__file__).resolve().parents[2]
    output = subprocess.run(command, cwd=root, check=True, stdout=subprocess.PIPE, text=True).stdout
    for message in map(json.loads, output.splitlines()):
        if message.get("executable") and message["target"]["name"] == "train_step":
            return message["executable"]
    raise RuntimeError("cargo named no executable")


def our_turn(bench, optimiser):
    """Level, and seconds a step, with dropout of elements and of units, by number of threads."""
    command = [bench, "--step", *(["--adamw"] if optimiser == "adamw" else [])]
    run = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    fields = dict(field.split("=") for field in run.stdout.split())
    names = ("ours", "units")
    return fields["level"], {n: [float(fields[f"{name}_{n}"]) for name in names] for n in (1, 2)}


def compare(python, bench, rounds, only, optimiser, chart):
    peers, failures = {}, []
    for name in PEERS:
        for threads in (1, 2) if only in name else ():
            try:
                peers[name, threads] = Peer(python, name, threads, optimiser)
            except RuntimeError as error:
                failures.append(f"{name}, {threads} thread(s): not run: {str(error)[:100]}")
    level = our_turn(bench, optimiser)[0]
    ours, units, times = {1: [], 2: []}, {1: [], 2: []}, {key: [] for key in peers}
    for _ in range(rounds):
        for threads, (elements, whole) in our_turn(bench, optimiser)[1].items():
            ours[threads].append(elements)
            units[threads].append(whole)
        for key, peer in peers.items():
            times[key].append(peer.turn())
    print(f"\n{'':32}{'threads':>8}{'us a step':>12}{'/ ours':>9}{'/ units':>9}")
    groups = []
    for threads in (1, 2):
        rows = [(f"fused-dropout, {level}", ours[threads]), ("whole units dropped", units[threads])]
        rows += [(name, times[name, n]) for name, n in peers if n == threads]
        bars = []
        for name, seconds in rows:
            ratios = [
                statistics.median(t / o for t, o in zip(seconds, base[threads]))
                for base in (ours, units)
            ]
            print(f"{name:32}{threads:8}{min(seconds) * 1e6:12.0f}{ratios[0]:9.2f}{ratios[1]:9.2f}")
            bars.append((name, min(seconds), ratios[0] if name in PEERS else None, name not in PEERS))
        groups.append(("1 thread" if threads == 1 else f"{threads} threads", bars))
    versions = {PEERS[name][0]: peer.version for (name, _), peer in peers.items()}
    print(f"\nSmallest time, median ratio of {rounds} rounds; versions {versions}.")
    speed_up = statistics.median(one / two for one, two in zip(ours[1], ours[2]))
    print(f"Ours on two threads is {speed_up:.2f} times as fast as on one.")
    print(*failures, sep="\n")
    if chart:
        names = ", ".join(
            f"{name} {versions[worker]}"
            for name, worker in (("PyTorch", "torch"), ("JAX", "jax"))
            if worker in versions
        )
        how = f"{names}. Smallest times, median ratios of {rounds} rounds."
        chart.write_text(step_chart.svg(TITLE.format(OPTIMISERS[optimiser]), groups, [f"{cpu()}, {date.today()}", how]))
    for peer in peers.values():
        peer.close()


def cpu():
    """The name of the CPU."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the virtual environment is, or goes")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="only peers whose name has this in it")
    parser.add_argument("--optimiser", choices=OPTIMISERS, default="sgd")
    parser.add_argument("--chart", type=Path, help="where to write a picture, as SVG")
    parser.add_argument("--no-torch", action="store_true", help="do not install torch")
    parser.add_argument("--no-install", action="store_true", help="use the environment as it is")
    options = parser.parse_args()
    folder = options.folder.absolute()
    if options.no_install:
        python = folder / "bin" / "python"
    else:
        python = install(folder, not options.no_torch)
    bench = our_bench()
    compare(python, bench, options.rounds, options.only, options.optimiser, options.chart)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(sys.argv[2], sys.argv[3], int(sys.argv[4]), sys.argv[5])
    else:
        main()
