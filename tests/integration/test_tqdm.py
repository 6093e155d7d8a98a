"""Progress bars of workers, drawn by the driver."""

from __future__ import annotations

from support.drivers import Driver


def test_bars_of_workers_and_what_they_print() -> None:
    code = """
    from shoal.experimental import tqdm_ray

    @ray.remote
    def work(n):
        for i in tqdm_ray.tqdm(range(n), desc=f"work {n}", flush_interval_s=0):
            if i == 2:
                print(f"halfway through {n}")
        return os.getpid()

    ray.init(num_cpus=2)
    pids = ray.get([work.remote(4), work.remote(5)])
    for i in tqdm_ray.tqdm(range(3), desc="here"):
        print("in between", i)
    report(pids=pids)
    command()
    ray.shutdown()
    print("the end")
    """
    with Driver(code, env={"COLUMNS": "100"}) as driver:
        pids = driver.report()["pids"]
        text = driver.text
        # On a busy machine the end of a session does not wait for all that a slow node has to tell.
        while not all(f"work {n}: 100%" in text for n in (4, 5)):
            line = driver.line()
            assert line, text
            text += line
        driver.tell("shut down")
        assert driver.wait() == 0
    text += driver.output[-1]
    for pid, n in zip(pids, (4, 5), strict=True):
        assert f"(work pid={pid}) halfway through {n}\n" in text
    assert "here: 100%" in text
    assert "in between 2\n" in text
    assert "__magic_token__" not in text
    assert text.endswith("the end\n")


def test_values_come_with_a_bar_and_errors_at_once() -> None:
    code = """
    @ray.remote
    def work(n):
        if n < 0:
            raise ValueError("below nought")
        return n * n

    ray.init(num_cpus=2)
    refs = [work.remote(n) for n in range(200)]
    assert ray.progress([*refs, refs[0]], desc="squares") == [*(n * n for n in range(200)), 0]
    assert ray.progress([]) == []
    assert ray.progress(ref for ref in refs[:3]) == [0, 1, 4]
    assert ray.progress(refs[3]) == 9
    @ray.remote
    def items():
        yield 1

    for wrong in (5, [5], {"a": refs[0]}, items.remote()):
        try:
            ray.progress(wrong)
        except TypeError:
            continue
        raise AssertionError(wrong)
    never = work.options(resources={"never": 1}).remote(1)
    try:
        ray.progress([never, work.remote(-1)], desc="failing")
    except ValueError as error:
        print("raised:", error.args)
    try:
        ray.progress([refs[0], never], timeout=0.1)
    except ray.exceptions.GetTimeoutError:
        print("too late")
    ray.shutdown()
    """
    with Driver(code, env={"COLUMNS": "100"}) as driver:
        assert driver.wait() == 0, driver.output
    text = "".join(driver.output)
    assert "squares: 100%" in text and "200/200" in text
    assert "raised:" in text and "below nought" in text
    assert "too late" in text
