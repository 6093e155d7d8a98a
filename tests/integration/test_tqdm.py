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
    ray.shutdown()
    print("the end")
    """
    with Driver(code, env={"COLUMNS": "100"}) as driver:
        pids = driver.report()["pids"]
        assert driver.wait() == 0
    text = driver.text
    for pid, n in zip(pids, (4, 5), strict=True):
        assert f"work {n}: 100%" in text
        assert f"(work pid={pid}) halfway through {n}\n" in text
    assert "here: 100%" in text
    assert "in between 2\n" in text
    assert "__magic_token__" not in text
    assert text.endswith("the end\n")
