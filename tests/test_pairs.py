"""Compiled loops over pairs: tested for what tiles are tested for, and their machine code on disk."""

import gc
import math
import os
import subprocess
import sys
from unittest.mock import patch

import pytest
import test_own_input as own_input
import test_properties as properties
import torch
from conftest import ROOT
from hypothesis import given, settings
from torch.utils.flop_counter import FlopCounterMode

from wiseale_nb import aggregate, pairs
from wiseale_nb.aggregate import kl_best_bound, kl_of_draws, kl_upper_bound, log_overlap
from wiseale_nb.pairs import TiledLogSums, log_sums

loops = pytest.importorskip("wiseale_nb.loops")  # needs numba
steady = settings(properties.steady, max_examples=20)


@pytest.fixture
def compiled(monkeypatch):
    """Loops at any size; the test fails if none ran."""
    calls, run = [], loops.sum_pairs
    monkeypatch.setattr(loops, "sum_pairs", lambda *arrays: [calls.append(1), run(*arrays)])
    monkeypatch.setattr(aggregate, "many_pairs", lambda x, mu: x.dtype == mu.dtype)
    monkeypatch.setattr(pairs, "MIN_COMPILED", 0)
    yield
    assert calls


def batch(M, d_z, spread=1.0, level=-3.0):
    generator = torch.Generator().manual_seed(0)
    mu = spread * torch.randn(M, d_z, generator=generator)
    return mu, level + 0.3 * torch.randn(M, d_z, generator=generator)


def relative_errors(ours, exact):
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, exact)]


# Numbers


@pytest.mark.parametrize("name", properties.PAIRWISE)
@steady
@given(properties.batches())
def test_loops_agree_with_float64(compiled, name, batch):
    ours = properties.results(properties.FUNCTIONS[name], *(t.float() for t in batch))
    exact = properties.results(properties.FUNCTIONS[name], *batch)
    properties.assert_finite(ours, torch.float32)
    if name != "aggregate_log_prob at 0":
        densities = name in properties.DENSITIES
        eps = 2**-22 if densities else 2**-23  # exp2 and log2 of the loops round once more than PyTorch's
        properties.assert_same(ours, exact, *batch, eps=eps, pairs_pull=densities)


@pytest.mark.parametrize(
    "M, d_z, spread, level", [(530, 64, 0.3, -0.1), (530, 64, 1.0, -3), (1500, 3, 1.0, -4)]
)
def test_loops_are_as_accurate_as_tiles(compiled, M, d_z, spread, level):
    mu, log_var = batch(M, d_z, spread, level)
    exact = properties.results(kl_upper_bound, mu.double(), log_var.double())
    errors = relative_errors(properties.results(kl_upper_bound, mu, log_var), exact)
    with patch.object(pairs, "MIN_COMPILED", math.inf):
        tiles = relative_errors(properties.results(kl_upper_bound, mu, log_var), exact)
    assert max(errors) <= 1.5e-6 and max(errors) <= 2 * max(tiles)


@pytest.mark.parametrize("level", [0.0, -20.0, -60.0, -80.0])
@pytest.mark.parametrize("name", [name for name in properties.PAIRWISE if name not in properties.DENSITIES])
def test_the_prior_pulls_on_narrow_posteriors(compiled, name, level):
    with patch.object(aggregate, "many_pairs", lambda *_: True):
        properties.test_the_prior_pulls_on_narrow_posteriors(name, level, True)


@pytest.mark.parametrize("size", own_input.SIZES)
@pytest.mark.parametrize("function", [kl_upper_bound, kl_best_bound, own_input.of_draws, own_input.at_means])
def test_not_finite(compiled, function, size):
    own_input.test_nan_stays_nan(function, size, torch.float32)
    if function in own_input.KLS:
        own_input.test_infinity_is_never_a_number(function, size)


@pytest.mark.parametrize("function", [kl_upper_bound, kl_best_bound, own_input.of_draws])
def test_out_of_range_is_right_or_infinite(compiled, function):
    own_input.test_out_of_range_is_right_or_infinite(function, True)


def test_symmetric_repeatable_and_row_by_row(compiled):
    mu, log_var = batch(700, 3)
    first, again = (properties.results(kl_best_bound, mu, log_var) for _ in range(2))
    assert all(map(torch.equal, first, again))
    flipped = log_sums(mu.flip(0), log_var.flip(0)).flip(0)
    torch.testing.assert_close(flipped, log_sums(mu, log_var), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(log_sums(mu, log_var), log_overlap(mu, log_var).logsumexp(1))
    noise = torch.randn(3, *mu.shape, generator=torch.Generator().manual_seed(1))
    one_by_one = [kl_of_draws(mu, log_var, draw[None])[0] for draw in noise]
    assert torch.equal(kl_of_draws(mu, log_var, noise), torch.stack(one_by_one))


def test_logarithms_are_kept_or_computed_again(compiled):
    mu, log_var = batch(600, 4)
    kept = properties.results(kl_upper_bound, mu, log_var)
    with patch.object(loops, "KEPT", 0):
        assert all(map(torch.equal, kept, properties.results(kl_upper_bound, mu, log_var)))


@pytest.mark.parametrize("levels", [False, True])
def test_points_too_far_to_tell_count_as_that_far(levels):
    """Over 1e16 standard deviations away, as in tiles: a finite value, and no gradient."""
    mu, log_var = torch.tensor([[0.0, 1.0], [1e3, 2.0], [0.0, -1e3]]), torch.tensor([[-80.0, 0.0]] * 3)
    z = torch.tensor([[500.0, 0.0], [1e3, 1.0], [-1e3, 1e3], [0.0, 1.0]])
    level = torch.tensor([3.0, -2.0, 0.0]) if levels else None
    results = []
    for form in (loops.CompiledLogSums, TiledLogSums):
        inputs = [t if t is None else t.clone().requires_grad_() for t in (mu, log_var, z, level)]
        sums = form.apply(*inputs[:3], None, inputs[3])
        wanted = [t for t in inputs if t is not None]
        results.append([sums.detach(), *torch.autograd.grad(sums.sum(), wanted)])
    for ours, tiles in zip(*results):
        assert ours.isfinite().all()
        torch.testing.assert_close(ours, tiles, rtol=1e-5, atol=1e-6)
    assert (results[0][0] < -1e31).sum() == 2


# Which form


def test_loops_where_they_pay_and_tensor_operations_elsewhere(monkeypatch):
    mu, log_var = batch(1024, 4)
    assert pairs.select_loops(mu, pairs.MIN_COMPILED) is loops.CompiledLogSums
    assert pairs.select_loops(mu, pairs.MIN_COMPILED - 1) is None
    assert pairs.select_loops(mu.double(), pairs.MIN_COMPILED) is None
    assert pairs.select_loops(mu.to("meta"), pairs.MIN_COMPILED) is None
    with FlopCounterMode(display=False):
        assert pairs.select_loops(mu, pairs.MIN_COMPILED) is None
    monkeypatch.setattr(pairs, "MIN_COMPILED", math.inf)
    assert torch.equal(log_sums(mu, log_var), TiledLogSums.apply(mu, log_var, None, None))


def test_default_dtype_does_not_matter(compiled):
    mu, log_var = batch(300, 2)
    expected = properties.results(kl_best_bound, mu, log_var)
    torch.set_default_dtype(torch.float64)
    try:
        assert all(map(torch.equal, expected, properties.results(kl_best_bound, mu, log_var)))
    finally:
        torch.set_default_dtype(torch.float32)


SCRIPT = """
import sys
block = sys.argv[1:]
if block:
    sys.modules["numba"] = None
import torch
import wiseale_nb.aggregate as aggregate
assert block or "numba" not in sys.modules, "numba is imported with the library"
mu, log_var = torch.randn(2, 1500, 2, generator=torch.Generator().manual_seed(0)).unbind()
print(float(aggregate.kl_upper_bound(mu, log_var)), "wiseale_nb.loops" in sys.modules)
"""


def value_and_form(*words, **variables):
    """The bound in a new process, and whether loops were imported."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *words],
        env={**os.environ, "PYTHONPATH": str(ROOT), **{k: str(v) for k, v in variables.items()}},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    value, form = done.stdout.split()
    return float(value), form == "True"


def test_without_numba_and_with_compilation_off_tiles_are_used():
    value, with_loops = value_and_form()
    assert with_loops
    for tiles in (value_and_form("no numba"), value_and_form(NUMBA_DISABLE_JIT=1)):
        assert tiles == (pytest.approx(value, rel=1e-6), False)


# Machine code on disk


def tiny(tmp_path, text="y[0] = x[0] + 1"):
    """A kernel of a source file that can be rewritten."""
    source = tmp_path / "source.py"
    source.write_text(f"def tiny(x, y):\n    {text}\n")
    scope = {"__name__": __name__}  # machine code on disk names the module of its function, which is imported
    exec(compile(source.read_text(), source, "exec"), scope)
    return loops.Kernel(scope["tiny"])


def run(kernel):
    x, y = torch.zeros(2, 1)
    gc.collect()  # what numba keeps of kernels that are gone, as long as nothing is collected
    kernel(x.numpy(), y.numpy())
    stats = kernel.compiled.stats
    return y.item(), sum(stats.cache_hits.values()) if stats.cache_path else None


def test_machine_code_is_read_again_until_the_source_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    assert run(tiny(tmp_path)) == (1, 0)
    assert run(tiny(tmp_path)) == (1, 1)
    assert run(tiny(tmp_path, "y[0] = x[0] + 2")) == (2, 0)  # same name, same size
    assert len(list((tmp_path / "cache" / "wiseale_nb").iterdir())) == 2


@pytest.mark.parametrize("folder", ["/dev/null/none", "/proc/none"])
def test_no_folder_for_machine_code(tmp_path, monkeypatch, folder):
    monkeypatch.setenv("NUMBA_CACHE_DIR", folder)
    assert run(tiny(tmp_path)) == (1, None)


def test_damaged_machine_code_and_a_full_disk(tmp_path, monkeypatch):
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    run(tiny(tmp_path))
    for file in (tmp_path / "cache").rglob("*.nb[ci]"):
        whole = file.read_bytes()
        for damaged in (b"", whole[: len(whole) // 2]):
            file.write_bytes(damaged)
            assert run(tiny(tmp_path))[0] == 1
        file.write_bytes(whole)
    kernel = tiny(tmp_path, "y[0] = x[0] + 3")
    with patch(
        "numba.core.caching.IndexDataCacheFile.save", side_effect=OSError(28, "No space left on device")
    ):
        assert run(kernel)[0] == 3
