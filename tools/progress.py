"""What the pipeline says while it works: each job, the epochs of those that train, what is left."""

import logging
import re
import shutil
import sys
import threading
import time
from collections import Counter

from wiseale_nb.runs import run_folder, runs_folder
from wiseale_tools.manifest import read_manifest

DRAWING = 10.0  # seconds that a figure takes, more or less; training takes what the manifest says

TARGETS = ("all", "studies")  # rules that do nothing themselves


def trainings(settings, profile, root):
    """The jobs that train: rule -> its name, its folder, its epochs, and how long it took before."""
    path = root / "figures" / profile / "MANIFEST.json"
    runs = read_manifest(path.parent)["runs"] if path.is_file() else {}
    jobs = {}
    for dataset, own in settings.items():
        for method in own["methods"]:
            folder = run_folder(root / runs_folder("", profile), dataset, method, 0).parent
            before = runs.get(f"{dataset}/{method}/seed{own['seeds'][0]}", {}).get(
                "wall_seconds", 6 * DRAWING
            )
            jobs[f"train_{dataset}_{method}"] = (
                f"{dataset}/{method}",
                folder,
                own["epochs"],
                before,
            )
    return jobs


def epochs_done(folder):
    """The last epoch that was saved in a folder of runs which are being trained."""
    saved = [re.match(r"epoch(\d+)-", file.name) for file in folder.glob("checkpoint/*/epoch*.safetensors")]
    return max((int(found[1]) for found in saved if found), default=0)


def in_words(seconds):
    """A duration, roughly."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


class Progress:
    """A filter of Snakemake's log that keeps count, and says what happens.

    On a terminal: a line for each job when it starts and when it is done, and one below them that changes,
    with the epochs. Elsewhere: one line for each job, when it is done.
    """

    def __init__(self, jobs, out=None):
        self.jobs, self.out = jobs, out or sys.stdout
        self.live = self.out.isatty()
        self.started, self.lock, self.ended = time.monotonic(), threading.Lock(), threading.Event()
        self.todo, self.running = Counter(), {}  # name -> how many; id -> name and when it started
        self.done = self.total = 0
        self.seen = {}  # name -> epochs; the checkpoints are gone while a run is measured
        self.spent = 0.0  # expected seconds of what is done

    def __enter__(self):
        if self.live:
            threading.Thread(target=self.watch, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.clear()

    def watch(self):
        while not self.ended.wait(1):
            with self.lock:
                self.show()

    def filter(self, record):
        """Take note of a message; whether Snakemake prints it: warnings and errors.

        Not that the files of a failed job are as they were before: it has a line for each.
        """
        event = getattr(record, "event", None)
        with self.lock:
            if event == "run_info":
                self.todo = Counter(record.stats)
                self.total = self.todo.pop("total", 0)
            elif event == "job_info":
                self.start(record.jobid, record.rule_name)
            elif event == "job_finished":
                self.finish(record.job_id)
            elif event == "job_error":
                self.running.pop(record.jobid, None)
        about_files = record.getMessage().startswith(("Restored previous version", "Cannot restore"))
        return record.levelno >= logging.WARNING and not about_files

    def start(self, job, name):
        self.running[job] = name, time.monotonic()
        if self.live:
            self.say(f"{self.label(name)}: started")

    def finish(self, job):
        name, since = self.running.pop(job, ("", time.monotonic()))
        self.done += 1
        self.todo[name] -= 1
        self.spent += self.expected(name)
        if name and name not in TARGETS:
            took = in_words(time.monotonic() - since)
            self.say(f"{self.label(name)}: done in {took} ({self.done} of {self.total}{self.left()})")

    def label(self, name):
        return self.jobs[name][0] if name in self.jobs else name.replace("fetch_", "data of ")

    def expected(self, name):
        if name in self.jobs:
            return self.jobs[name][3]
        return 0.0 if name in TARGETS or name.startswith("fetch_") else DRAWING

    def epochs(self, name):
        """Epochs done and epochs in all of a job that trains."""
        _, folder, epochs, _ = self.jobs[name]
        self.seen[name] = max(self.seen.get(name, 0), min(epochs_done(folder), epochs))
        return self.seen[name], epochs

    def part(self, name):
        """The share of a running job that is done."""
        done, epochs = self.epochs(name) if name in self.jobs else (0, 1)
        return done / epochs

    def left(self):
        """An estimate of what is left, from what is done: first the jobs' shares, then the time it took."""
        todo = sum(self.expected(name) * count for name, count in self.todo.items())
        under_way = sum(self.expected(name) * self.part(name) for name, _ in self.running.values())
        done, todo = self.spent + under_way, todo - under_way
        if done <= 0 or todo <= 0:
            return ""
        return f", about {in_words((time.monotonic() - self.started) * todo / done)} left"

    def say(self, text):
        self.clear()
        print(text, file=self.out, flush=True)

    def clear(self):
        if self.live:
            print("\r\033[K", end="", file=self.out, flush=True)

    def show(self):
        """The line that changes; the cursor stays at its start, so that an error is printed over it."""
        names = [name for name, _ in self.running.values()]
        parts = [self.label(name) for name in names]
        for i, name in enumerate(names):
            if name in self.jobs:
                parts[i] += " epoch {} of {}".format(*self.epochs(name))
        text = f"[{self.done} of {self.total}{self.left()}] {'; '.join(parts)}"
        if names:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\033[K{text[:width]}\r", end="", file=self.out, flush=True)
