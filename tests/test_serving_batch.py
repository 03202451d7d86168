"""The batch of a server: a job has the same outputs whatever joins or leaves the batch while it runs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charlstm.architecture import weight_shapes
from charlstm.cells import CELLS
from charlstm.config import Config, ModelConfig, SamplingConfig
from charlstm.sampling.fragments import Fragment
from charlstm.serving.batch import MAX_ACTIVE, StepBatch
from charlstm.serving.jobs import Job, SymbolScore, make_samples
from charlstm.storage.model import ModelFile
from charlstm.text_model import TextModel
from charlstm.vocabulary import CharVocabulary

VOCABULARY = CharVocabulary("\nabcdefg", with_unknown=True, documents=True)

MAX_STEPS = 200
"""More than all jobs of a test take, one after the other."""

SAMPLING = st.builds(
    SamplingConfig,
    temperature=st.sampled_from([0.0, 0.7, 1.0]),
    top_k=st.sampled_from([0, 3]),
    top_p=st.sampled_from([0.8, 1.0]),
    min_p=st.sampled_from([0.0, 0.1]),
    length=st.integers(1, 12),
)

REQUESTS = st.tuples(
    st.lists(st.integers(1, 7), max_size=12),  # the prompt
    SAMPLING,
    st.integers(0, 40),  # the number of samples
    st.sampled_from([(), ("a",), ("bc", "de")]),  # stop strings
    st.sampled_from([None, 0, 2]),  # the number of likeliest symbols
)
Request = tuple[list[int], SamplingConfig, int, tuple[str, ...], int | None]


def make_network(cell: str, *, quantized: bool, bigrams: int = 0) -> StepBatch:
    config = Config(model=ModelConfig(cell=cell, layers=2, hidden=6, embedding=4, bigrams=bigrams))
    random = np.random.default_rng(1)
    shapes = weight_shapes(config.model, VOCABULARY.size)
    weights = {name: random.standard_normal(shape).astype("f") for name, shape in shapes.items()}
    model = TextModel(ModelFile(config, VOCABULARY, weights))
    return StepBatch(model.quantized_network if quantized else model.network, VOCABULARY)


def make_job(request: Request, seed: int) -> Job:
    """Return a job that draws samples or, without any, scores its prompt."""
    prompt, config, n, stops, top = request
    bos = VOCABULARY.bos
    if n:
        return Job([bos, *prompt], config, make_samples(seed, n, stops), top=top)
    return Job([bos, *prompt[:-1]], config, targets=prompt, top=top or 0)


def outcome(job: Job) -> tuple[list[tuple[Fragment, SymbolScore | None]], list[SymbolScore], int]:
    """Return everything that a job has produced, sample by sample."""
    return sorted(job.outputs, key=lambda output: output[0].index), list(job.prompt_scores), job.open


def run_alone(batch: StepBatch, job: Job) -> object:
    batch.waiting.append(job)
    finish(batch)
    return outcome(job)


def finish(batch: StepBatch) -> None:
    """Step until nothing is left to do."""
    for _ in range(MAX_STEPS):
        batch.step()
        assert len(batch.slots) <= MAX_ACTIVE
    assert not batch.is_busy


@pytest.mark.parametrize("quantized", [False, True])
@pytest.mark.parametrize(("cell", "bigrams"), [*((cell, 0) for cell in CELLS), ("lstm", 16)])
@settings(max_examples=4)
@given(requests=st.lists(st.tuples(REQUESTS, st.integers(0, 6), st.booleans()), min_size=1, max_size=6))
def test_a_job_does_not_depend_on_what_shares_the_batch(
    cell: str, bigrams: int, quantized: bool, requests: list[tuple[Request, int, bool]]
) -> None:
    batch = make_network(cell, quantized=quantized, bigrams=bigrams)
    alone = [run_alone(batch, make_job(request, seed)) for seed, (request, _, _) in enumerate(requests)]
    jobs = []
    for seed, (request, pause, leaves) in enumerate(requests):
        jobs.append(make_job(request, seed))
        batch.waiting.append(jobs[-1])
        for _ in range(pause):
            batch.step()
        jobs[-1].cancelled = leaves
    finish(batch)
    assert not batch.slots and all(len(part) == 0 for layer in batch.states for part in layer)
    for job, expected, (_, _, leaves) in zip(jobs, alone, requests, strict=True):
        assert leaves or outcome(job) == expected


def test_a_cancelled_job_takes_no_further_step() -> None:
    batch = make_network("lstm", quantized=True)
    request: Request = ([1, 2], SamplingConfig(length=0), 40, (), None)
    first, second = make_job(request, 1), make_job(request, 2)
    batch.waiting.extend([first, second])
    for _ in range(10):
        batch.step()
    assert {slot.job for slot in batch.slots} == {first}  # there is no room for 80 rows
    first.cancelled = True
    batch.step()
    assert {slot.job for slot in batch.slots} == {second}
    second.cancelled = True
    assert batch.step() == []
    assert not batch.is_busy


def test_a_step_that_fails_ends_every_job_with_the_error() -> None:
    batch = make_network("lstm", quantized=True)
    job = make_job(([1], SamplingConfig(), 2, (), None), 1)
    batch.waiting.append(job)
    batch.step()
    assert batch.clear(error := ValueError("broken")) == [job]
    assert (job.error, job.has_ended, batch.is_busy) == (error, True, False)
    again = make_job(([1], SamplingConfig(length=3), 2, (), None), 1)
    run_alone(batch, again)
    assert again.has_ended and again.outputs
