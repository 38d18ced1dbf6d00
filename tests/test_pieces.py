"""The gradient of a request in one compiled call, beside the same piece by piece in Python."""

import copy
import os
import subprocess
import sys
from pathlib import Path

import numba
import numpy as np
import pytest

from eann_lite.batches import draw_batch
from eann_lite.compilation.calls import call_kernel
from eann_lite.compilation.placed import Placed
from eann_lite.compiled import Kernel
from eann_lite.errors import InputError
from eann_lite.kernels import pieces
from eann_lite.kernels.arrays import empty
from eann_lite.model.initial import initial_parameters
from eann_lite.model.parameters import default_constants
from eann_lite.model.specification import NetworkSpecification, Specification
from eann_lite.structures import Structure
from eann_lite.training import objective
from eann_lite.training.loss import Loss
from eann_lite.training.objective import Evaluator, labelled_set

LOSS = Loss(energy_weight=3.0, forces_weight=0.7, stress_weight=0.4, huber=0.5, forces_huber=0.3)


def structures(sizes, periodic=False, labels=("energy", "forces", "stress"), seed=0):
    """Random carbon and hydrogen, so many atoms each, with random labels."""
    rng = np.random.default_rng(seed)
    found = []
    for n in sizes:
        grid = np.stack(np.meshgrid(*[np.arange(5)] * 3), axis=-1).reshape(-1, 3)
        positions = 1.5 * grid[rng.permutation(125)[:n]] + 0.2 * rng.random((n, 3))
        every = {"energy": rng.normal(), "forces": rng.normal(size=(n, 3)), "stress": np.diag(rng.normal(size=3))}
        found.append(
            Structure(
                rng.choice([1, 6], n), positions, 8.0 * np.eye(3) if periodic else np.zeros((3, 3)), periodic,
                **{name: label for name, label in every.items() if name in labels and (periodic or name != "stress")},
                weight=rng.uniform(0.5, 2.0),
            )
        )  # fmt: skip
    return found


def evaluators(precision="float64", threads=(1,), seed=3, **changes):
    """Evaluators of one small random model, on so many threads, and its parameter vector."""
    network = NetworkSpecification((6, 5), 1, "tanh_like")
    specification = Specification(
        elements=("H", "C"), cutoff=3.0, max_degree=2, radial=4, densities=6, recursions=1, network=network,
        recursion_network=network, **changes,
    )  # fmt: skip
    found = [Evaluator(specification, default_constants(specification), n, precision) for n in threads]
    vector = found[0].layout.pack(initial_parameters(specification, seed))
    for evaluator in found:
        evaluator.set_parameters(vector)
    return found, vector


def in_python(evaluator, labelled, chosen):
    """(loss, gradient) piece by piece in Python."""
    return evaluator._sum(
        lambda sweeps, piece, threaded: objective.batch_loss_and_gradient(sweeps, labelled, piece, LOSS, threaded),
        labelled, chosen,
    )  # fmt: skip


def assert_same(found, expected):
    assert found[0] == expected[0]
    assert found[1].dtype == expected[1].dtype == np.float64
    np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("precision", ["float64", "float32"])
@pytest.mark.parametrize("threads", [1, 2, 3])
@pytest.mark.parametrize(
    "sizes, periodic, labels",
    [
        ([5], False, ("energy", "forces")),
        ([90], True, ("energy", "forces", "stress")),
        ([1, 30, 125, 2, 60, 3, 17, 90, 4], False, ("energy", "forces")),
        ([20, 40, 30, 60], True, ("energy", "stress")),
        ([20, 40, 30, 60], True, ("energy",)),
        ([40] * 100, False, ("energy", "forces")),
    ],
)
def test_the_compiled_call_gives_the_bits_that_python_does(precision, threads, sizes, periodic, labels):
    (evaluator,), _ = evaluators(precision, (threads,))
    labelled = labelled_set(structures(sizes, periodic, labels), evaluator.specification)
    chosen = np.random.default_rng(1).permutation(len(sizes))
    found = evaluator.loss_and_gradient(labelled, chosen, LOSS)
    forward, reverse, forward_tangent, reverse_tangent = evaluator._kept.addresses.value
    assert forward and reverse_tangent and bool(reverse) == bool(forward_tangent) == (labels != ("energy",))
    assert_same(found, in_python(evaluator, labelled, chosen))


def test_forces_may_be_known_after_requests_without_any():
    (evaluator,), _ = evaluators(threads=(2,))
    first, then = (
        labelled_set(structures([30] * 8, labels=labels), evaluator.specification)
        for labels in (("energy",), ("energy", "forces"))
    )
    for labelled in (first, then, first):
        found = evaluator.loss_and_gradient(labelled, np.arange(8), LOSS)
        assert_same(found, in_python(evaluator, labelled, np.arange(8)))


def test_pieces_with_and_without_known_forces_stand_in_one_request():
    (evaluator,), _ = evaluators(threads=(2,))
    some = structures([30, 30, 30, 30], labels=("energy", "forces"))
    others = structures([30, 30, 30, 30], labels=("energy",), seed=1)
    labelled = labelled_set(some + others, evaluator.specification)
    assert_same(evaluator.loss_and_gradient(labelled, np.arange(8), LOSS), in_python(evaluator, labelled, np.arange(8)))


def test_a_large_structure_whose_blocks_threads_share_gives_the_same():
    found, _ = evaluators(threads=(1, 2))
    large = [Structure(np.ones(320, int), 40.0 * np.random.default_rng(0).random((320, 3)), energy=1.0)]
    labelled = labelled_set(large, found[0].specification)
    one, two = (evaluator.loss_and_gradient(labelled, np.arange(1), LOSS) for evaluator in found)
    assert_same(two, one)
    assert_same(one, in_python(found[0], labelled, np.arange(1)))


def test_requests_of_any_size_follow_one_another_with_predictions_and_new_parameters_between_them():
    (evaluator,), vector = evaluators(threads=(2,))
    rng, sets = np.random.default_rng(2), []
    for seed in range(2):
        found = structures(rng.integers(1, 80, 30), periodic=bool(seed), seed=seed)
        sets.append(labelled_set(found, evaluator.specification))
    for n in (3, 1, 30, 2, 12, 1):
        labelled, chosen = sets[n % 2], rng.permutation(30)[:n]
        (fresh,), _ = evaluators()
        vector = vector + 1e-3 * rng.normal(size=vector.size)
        for each in (evaluator, fresh):
            each.set_parameters(vector)
        assert_same(evaluator.loss_and_gradient(labelled, chosen, LOSS), in_python(fresh, labelled, chosen))
        np.testing.assert_array_equal(evaluator.predict(labelled).forces, fresh.predict(labelled).forces)


def test_a_copy_of_an_evaluator_works_in_arrays_and_with_parameters_of_its_own():
    (evaluator,), vector = evaluators(threads=(2,))
    labelled, everything = labelled_set(structures([30] * 6), evaluator.specification), np.arange(6)
    before = evaluator.loss_and_gradient(labelled, everything, LOSS)
    other = copy.deepcopy(evaluator)
    other.set_parameters(1.1 * vector)
    changed = other.loss_and_gradient(labelled, everything, LOSS)
    assert changed[0] != before[0]
    assert_same(evaluator.loss_and_gradient(labelled, everything, LOSS), before)


def test_what_a_request_gave_is_not_overwritten_by_the_next():
    (evaluator,), _ = evaluators()
    labelled = labelled_set(structures([30] * 6), evaluator.specification)
    for chosen in (np.arange(1), np.arange(6)):
        _, gradient = evaluator.loss_and_gradient(labelled, chosen, LOSS)
        kept = gradient.copy()
        evaluator.loss_and_gradient(labelled, chosen[::-1] if chosen.size > 1 else np.array([3]), LOSS)
        np.testing.assert_array_equal(gradient, kept)


def test_python_is_asked_again_and_again_whether_to_go_on(monkeypatch):
    (evaluator,), _ = evaluators(threads=(2,))
    labelled = labelled_set(structures([60] * 80), evaluator.specification)
    calls = []
    run = Kernel.on_threads
    monkeypatch.setattr(Kernel, "on_threads", lambda *arguments: (calls.append(0), run(*arguments))[1])
    evaluator.loss_and_gradient(labelled, np.arange(80), LOSS)
    assert len(calls) >= 80 * 60 / (2 * (pieces.AT_A_TIME + 60))
    assert len(calls) > 1


def test_the_number_of_threads_that_numba_is_set_to_stays_as_it_was():
    (evaluator,), _ = evaluators(threads=(2,))
    labelled = labelled_set(structures([60] * 4), evaluator.specification)
    before = numba.get_num_threads()
    try:
        for n in range(1, numba.config.NUMBA_NUM_THREADS + 1):
            numba.set_num_threads(n)
            evaluator.loss_and_gradient(labelled, np.arange(4), LOSS)
            assert numba.get_num_threads() == n
    finally:
        numba.set_num_threads(before)


def test_where_kernels_cannot_be_called_by_address_python_runs_them(monkeypatch):
    (evaluator, other), _ = evaluators(threads=(1, 2))
    labelled, everything = labelled_set(structures([30] * 6), evaluator.specification), np.arange(6)
    expected = evaluator.loss_and_gradient(labelled, everything, LOSS)
    monkeypatch.setattr(Kernel, "address", lambda self, *arguments: 0)
    monkeypatch.setattr(Kernel, "on_threads", None)
    assert_same(other.loss_and_gradient(labelled, everything, LOSS), expected)


def test_a_piece_with_more_pairs_than_32_bits_count_is_refused_before_any_work(monkeypatch):
    (evaluator,), _ = evaluators()
    labelled = labelled_set(structures([30] * 6), evaluator.specification)
    first = labelled.packed.first.copy()
    first[30:] += 2**31
    labelled = labelled._replace(packed=labelled.packed._replace(first=first))
    monkeypatch.setattr(Kernel, "on_threads", None)
    with pytest.raises(InputError, match="pairs in one batch: expected less than 2147483648. Give fewer structures"):
        evaluator.loss_and_gradient(labelled, np.arange(6), LOSS)


@Kernel
def needs_memory(threads, size, found):
    found[0] = empty(size, np.float64).size


@Kernel
def calls_another(threads, address, size, found):
    call_kernel(address, threads, size, found)


def test_an_error_of_a_kernel_that_is_called_by_address_reaches_python():
    found = np.zeros(1)
    address = needs_memory.address(3, found)
    calls_another(False, address, 3, found)
    assert found[0] == 3.0
    with pytest.raises(MemoryError):
        calls_another(False, address, -1, found)


@Kernel
def no_memory_for_many_atoms(threads, potential, batch, values, energies):
    energies[:] = empty(-1 if batch.order.size > 100 else 1, np.float64).size


@pytest.mark.parametrize("place", [0, 5, 19])
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_when_one_worker_finds_no_memory_the_others_do_not_wait_for_it(place, threads):
    (evaluator,), _ = evaluators(threads=(threads,))
    sizes = [60] * 20
    sizes[place] = 120
    labelled, everything = labelled_set(structures(sizes), evaluator.specification), np.arange(20)
    expected = evaluator.loss_and_gradient(labelled, everything, LOSS)
    given = evaluator._kept.addresses
    batch, (potential, values, *_) = Placed(draw_batch(labelled.packed, everything[:1], 2)), evaluator._kept.first
    address = no_memory_for_many_atoms.address(potential, batch, values, np.empty(0))
    evaluator._kept.addresses = Placed((address, *given.value[1:]))
    with pytest.raises(MemoryError):
        evaluator.loss_and_gradient(labelled, everything, LOSS)
    evaluator._kept.addresses = given
    assert_same(evaluator.loss_and_gradient(labelled, everything, LOSS), expected)


def test_when_there_is_no_memory_for_larger_pieces_room_for_small_ones_is_not_taken_for_it(monkeypatch):
    (evaluator,), _ = evaluators(threads=(2,))
    small, large = (labelled_set(structures([n] * 30), evaluator.specification) for n in (2, 50))
    expected = in_python(evaluator, large, np.arange(30))
    evaluator.loss_and_gradient(small, np.arange(30), LOSS)

    def fail(*sizes):
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(evaluator.sweeps[1], "placed_for_gradients", fail)
        for _ in range(2):
            with pytest.raises(MemoryError):
                evaluator.loss_and_gradient(large, np.arange(30), LOSS)
    assert_same(evaluator.loss_and_gradient(large, np.arange(30), LOSS), expected)


def test_no_structures_have_no_loss_and_no_gradient():
    (evaluator,), _ = evaluators()
    labelled = labelled_set(structures([3]), evaluator.specification)
    loss, gradient = evaluator.loss_and_gradient(labelled, [], LOSS)
    assert loss == 0.0 and gradient.shape == (evaluator.layout.size,) and not gradient.any()


def test_indices_may_be_a_list_read_only_or_not_contiguous():
    (evaluator,), _ = evaluators()
    labelled = labelled_set(structures([30] * 6), evaluator.specification)
    expected = evaluator.loss_and_gradient(labelled, np.array([0, 2, 4]), LOSS)
    read_only = np.array([0, 2, 4])
    read_only.flags.writeable = False
    for chosen in ([0, 2, 4], read_only, np.arange(6)[::2], np.array([0, 2, 4], np.int32)):
        assert_same(evaluator.loss_and_gradient(labelled, chosen, LOSS), expected)


AFTER_OTHERS = """
import os, sys, threading
import numpy as np
sys.path.insert(0, {tests!r})
from test_pieces import LOSS, evaluators, labelled_set, structures

def work(found):
    (evaluator,), _ = evaluators(threads=(2,))
    labelled = labelled_set(structures([30] * 24), evaluator.specification)
    for _ in range(20):
        found.append(evaluator.loss_and_gradient(labelled, np.arange(24), LOSS)[0])
    return evaluator, labelled

found = []
evaluator, labelled = work(found)
predicted = evaluator.predict(labelled).energies
if {what!r} == "forked":
    child = os.fork()
    if child == 0:
        work(found)
        same = (evaluator.predict(labelled).energies == predicted).all()
        os._exit(0 if len(found) == 40 and len(set(found)) == 1 and same else 1)
    assert os.waitpid(child, 0)[1] == 0, "child"
else:
    several = [threading.Thread(target=work, args=(found,)) for _ in range(3)]
    for thread in several:
        thread.start()
    for thread in several:
        thread.join()
    assert len(found) == 80, "a thread has ended early"
assert len(set(found)) == 1, found
"""


@pytest.mark.parametrize("what, layer", [("forked", "default"), ("threads", "default"), ("threads", "workqueue")])
def test_a_forked_process_and_several_threads_of_python_take_gradients_too(what, layer):
    if what == "forked" and not hasattr(os, "fork"):
        pytest.skip("there is no fork here")
    here = Path(__file__).parent
    environment = os.environ | {"NUMBA_THREADING_LAYER": layer, "NUMBA_NUM_THREADS": "2"}
    environment["PYTHONPATH"] = str(here.parent)
    code = AFTER_OTHERS.format(tests=str(here), what=what)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
