"""AutoML as a service: several clients ask at once which model is best on their data.

    python examples/automl/main.py [--plot automl-scores.png] [--num-cpus N] [--data-sets NAME ...] [--models NAME ...]

A ``Proxy`` actor takes the requests, a ``Trainer`` actor serves each of them, and their tasks share the workers.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from pathlib import Path

from catalogue import data_sets, models
from client import Client
from proxy import NAME, Proxy
from report import ProgressBar, print_leaderboard, save_plot

import shoal as ray


def main() -> None:
    arguments = argparse.ArgumentParser(description="AutoML as a service on Shoal")
    arguments.add_argument("--plot", type=Path, default=Path("automl-scores.png"), help="where to save the plot")
    arguments.add_argument("--num-cpus", type=int, help="CPUs of the cluster; all of this machine's by default")
    arguments.add_argument("--data-sets", nargs="+", choices=data_sets(), metavar="NAME", help="only these of the four")
    arguments.add_argument("--models", nargs="+", choices=models(), metavar="NAME", help="only these of the ten")
    arguments.add_argument("--dashboard", action="store_true", help="with its page, which stays open until Ctrl-C")
    options = arguments.parse_args()

    context = ray.init(num_cpus=options.num_cpus, include_dashboard=options.dashboard)
    if options.dashboard:
        print(f"The dashboard: http://{context.dashboard_url}")
    start = time.perf_counter()
    service = Proxy.options(name=NAME).remote()
    ray.get(service.__ray_ready__.remote())

    client = Client()
    candidates = {name: model for name, model in models().items() if name in (options.models or models())}
    data = {title: both for title, both in data_sets().items() if title in (options.data_sets or data_sets())}
    requests = {title: client.submit(candidates, features, labels) for title, (features, labels) in data.items()}
    request_ids = list(requests.values())
    print(f"{len(requests)} requests, {len(candidates)} models each, on {ray.cluster_resources()['CPU']:.0f} CPUs")

    bar = ProgressBar()
    results = [client.result(request_id) for request_id in request_ids]
    pending = results
    while pending:
        # Comes back as soon as all are ready, and often enough to move the bar until then.
        _, pending = ray.wait(pending, num_returns=len(pending), timeout=0.2)
        bar.show(client.progress(request_ids))

    leaderboards = dict(zip(requests, ray.get(results), strict=True))
    client.forget(request_ids)
    for title, leaderboard in leaderboards.items():
        print_leaderboard(title, leaderboard)
    save_plot(leaderboards, options.plot)
    print(f"\nscores of all folds: {options.plot}   ({time.perf_counter() - start:.0f} s)")
    if options.dashboard:
        print("Ctrl-C ends the cluster and its page.")
        with contextlib.suppress(KeyboardInterrupt):
            threading.Event().wait()
    ray.shutdown()


if __name__ == "__main__":
    main()
