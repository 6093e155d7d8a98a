"""The user's program of the matrix: brings itself to a moment, says so, and reports what it got in spite of all.

Its arguments are MOMENT KIND DIRECTORY; it runs after the preamble of `support.drivers`. KIND is "tasks", or "actor":
then calls of an actor do the same. It does everything twice: ``again`` may be repeated, ``once`` may not. What runs
tells so by files in the directory, and goes on when there is a file ``go``.
"""

# ruff: noqa: F821 - what is not defined here is in that preamble

import numpy as np

MOMENT, KIND, DIRECTORY = sys.argv[1:4]
#: A node's store has room for two; so many of each sort are twice as much.
OBJECT_BYTES, MORE_THAN_FIT = 24 << 20, 2
PATIENCE_S = 60

ray.init(logging_level="ERROR", log_to_driver=False, namespace="matrix")
far = next(node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Labels"].get("name") == "far1")
THERE = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(far, soft=True)


def tell(name):
    """A file with this process's id, whole as soon as it is there."""
    with open(f"{DIRECTORY}/{name}.new", "w") as file:
        file.write(str(os.getpid()))
    os.replace(f"{DIRECTORY}/{name}.new", f"{DIRECTORY}/{name}")


def wait_for(name):
    while not os.path.exists(f"{DIRECTORY}/{name}"):
        time.sleep(0.002)


def work(name):
    tell(name)
    wait_for("go")
    return name


def make(number):
    return np.full(OBJECT_BYTES // 8, number)


@ray.remote(num_cpus=0)
class Actor:
    def __init__(self, name=""):
        self.name = name
        if name:
            work(name)

    def work(self, name):
        return work(name)

    def make(self, number):
        return make(number)

    def call(self):
        return self.name


def calls(function):
    """What calls it so that it may be repeated, and what calls it so that it may not."""
    if KIND == "actor":
        again = Actor.options(max_restarts=3, max_task_retries=3, scheduling_strategy=THERE).remote()
        once = Actor.options(scheduling_strategy=THERE).remote()
        actors.extend([again, once])
        return [getattr(actor, function.__name__).remote for actor in actors]
    task = ray.remote(num_cpus=0, scheduling_strategy=THERE)(function)
    return [task.options(max_retries=retries).remote for retries in (3, 0)]


actors = []


def outcome(refs, right):
    """ "result" when all are right, else what the first of the others was."""
    for ref, expected in zip(refs, right, strict=True):
        try:
            value = ray.get(ref, timeout=PATIENCE_S)
        except ray.exceptions.GetTimeoutError as error:
            return f"hung: {error}"
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        if isinstance(value, np.ndarray):
            value = int(value[0]) if (value == value[0]).all() and value.nbytes == OBJECT_BYTES else "torn"
        if value != expected:
            return f"wrong: {value!r} instead of {expected!r}"
    return "result"


def ready():
    """The next thing it does leads to the moment."""
    report(job=ray.get_runtime_context().get_job_id())
    command()


def finish(again, once):
    """Each: references and the right values."""
    report(again=outcome(*again), once=outcome(*once))


def before_the_lease():
    @ray.remote(num_cpus=0, resources={"far": 1}, max_retries=3)
    def hold(name):
        return work(name)

    @ray.remote(num_cpus=0, resources={"far": 1})
    def short():
        return "short"

    held = [hold.remote("one"), hold.remote("two")]
    wait_for("one")
    wait_for("two")
    again, once = short.options(max_retries=3).remote(), short.options(max_retries=0).remote()
    ready()
    finish(([again, *held], ["short", "one", "two"]), ([once], ["short"]))


def running():
    again, once = calls(work)
    ready()
    refs = again("again"), once("once")
    finish(([refs[0]], ["again"]), ([refs[1]], ["once"]))


def make_objects(number):
    """So many of each sort, where they are made: references, and what they hold."""
    again, once = calls(make)
    numbers = list(range(number))
    return ([again(n) for n in numbers], numbers), ([once(n) for n in numbers], numbers)


def in_transfer():
    again, once = make_objects(1)
    ray.wait(again[0] + once[0], num_returns=2, fetch_local=False)
    ready()
    finish(again, once)


def spilling():
    ready()
    finish(*make_objects(MORE_THAN_FIT))


def restoring():
    again, once = make_objects(MORE_THAN_FIT)
    ray.wait(again[0] + once[0], num_returns=2 * MORE_THAN_FIT, fetch_local=False)
    ready()
    finish(again, once)


class Account:
    """What it has saved goes to the blob store."""

    def __init__(self):
        self.total, self.ballast = 0, os.urandom(OBJECT_BYTES)

    def add(self, amount):
        self.total += amount
        ray.checkpoint()
        return self.total


def checkpointing():
    durable = ray.remote(num_cpus=0, durable=True, scheduling_strategy=THERE)(Account).remote()
    other = ray.remote(num_cpus=0, max_restarts=3, scheduling_strategy=THERE)(Account).remote()
    ready()
    # The second call of the durable one tells whether the first counted once.
    again, once = [durable.add.remote(1), durable.add.remote(10)], [other.add.remote(1)]
    finish((again, [1, 11]), (once, [1]))


def creating():
    ready()
    again = Actor.options(max_restarts=3, max_task_retries=3, scheduling_strategy=THERE).remote("again")
    once = Actor.options(scheduling_strategy=THERE).remote("once")
    refs = again.call.remote(), once.call.remote()
    finish(([refs[0]], ["again"]), ([refs[1]], ["once"]))


def half_prepared():
    @ray.remote(num_cpus=1)
    def inside(number):
        return number

    ready()
    group = ray.util.placement_group([{"CPU": 1}] * 3, strategy="STRICT_SPREAD")
    bundles = [ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy(group, number) for number in range(3)]
    again, once = (
        [inside.options(scheduling_strategy=bundle, max_retries=retries).remote(n) for n, bundle in enumerate(bundles)]
        for retries in (3, 0)
    )
    finish((again, [0, 1, 2]), (once, [0, 1, 2]))


{
    "before the lease": before_the_lease,
    "task running": running,
    "reply on its way": running,
    "object in transfer": in_transfer,
    "spilling": spilling,
    "restoring": restoring,
    "checkpointing": checkpointing,
    "actor being created": creating,
    "placement group half prepared": half_prepared,
}[MOMENT]()
