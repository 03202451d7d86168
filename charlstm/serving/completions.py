"""/v1/completions: texts that continue prompts, or fill the gap between a prompt and a suffix."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, replace
from time import time
from typing import Any
from uuid import uuid4

from starlette.responses import Response

from charlstm.serving.choices import Choice
from charlstm.serving.errors import ApiError
from charlstm.serving.filling import DEFAULT_GAP, FillingThread, cut_at_stop
from charlstm.serving.jobs import Job, make_samples
from charlstm.serving.models import ServedModel
from charlstm.serving.parameters import CompletionRequest
from charlstm.serving.prompts import parse_prompt
from charlstm.serving.responses import DelayedJSON, EventStream
from charlstm.serving.thread import BatchThread
from charlstm.serving.work import Work
from charlstm.text_model import draw_seed

MAX_TOTAL = 1_000_000
"""Characters that all texts of a request have at most."""

MAX_SCORES = 1_000_000
"""Log-probabilities of a response. They take far more memory than the text."""


@dataclass(frozen=True)
class Header:
    """What every object of a response begins with."""

    id: str
    model: str
    created: int
    seed: int

    @classmethod
    def create(cls, model: ServedModel, seed: int | None) -> Header:
        return cls(f"cmpl-{uuid4().hex}", model.name, int(time()), draw_seed() if seed is None else seed)

    def wrap(self, choices: Sequence[Mapping[str, Any]], usage: Mapping[str, int] | None) -> dict[str, Any]:
        """Return an object of /v1/completions."""
        return {
            "id": self.id,
            "object": "text_completion",
            "created": self.created,
            "model": self.model,
            "seed": self.seed,
            "choices": list(choices),
            "usage": usage,
        }


class Completion:
    """The work for a request to /v1/completions. Raises ApiError for a prompt that the model cannot read."""

    def __init__(
        self, stepping: BatchThread, filling: FillingThread, model: ServedModel, request: CompletionRequest
    ) -> None:
        self.filling, self.model, self.request = filling, model, request
        self.header = Header.create(model, request.seed)
        self.prompts = [parse_prompt(prompt, model, request.unknown) for prompt in request.prompts]
        model.encode(request.suffix, request.unknown, "suffix")
        self.length = self.choose_length()
        self.filled = 0  # characters before the suffix
        self.choices = [
            Choice(index, model, with_scores=request.logprobs is not None)
            for index in range(len(self.prompts) * request.n)
        ]
        self.scoring = Work(stepping, model.scoring, self.make_scoring_jobs())
        self.sampling = Work(stepping, model.sampling, self.make_sampling_jobs())

    def choose_length(self) -> int:
        """Return how many characters each text has at most. Raises ApiError if the answer would be too large."""
        request, count = self.request, len(self.prompts) * self.request.n
        length = request.max_tokens
        if length is None:
            length = min(self.model.default_length, MAX_TOTAL // count)
        if length * count > MAX_TOTAL:
            raise ApiError(
                f"max_tokens times the number of texts is {length * count:,}, more than {MAX_TOTAL:,}",
                param="max_tokens",
            )
        echoed = sum(prompt.count for prompt in self.prompts) * request.n if request.echo else 0
        scores = (length * count + echoed) * ((request.logprobs or 0) + 1)
        if request.logprobs is not None and scores > MAX_SCORES:
            raise ApiError(
                f"the texts could have {scores:,} log-probabilities, more than {MAX_SCORES:,}", param="logprobs"
            )
        return length

    def make_scoring_jobs(self) -> list[Job]:
        """Return a job for each prompt whose log-probabilities are asked for."""
        if not self.request.echo or self.request.logprobs is None:
            return []
        bos = self.model.vocabulary.bos
        return [
            Job([bos, *prompt.ids[:-1]], targets=prompt.ids, top=self.request.logprobs) if prompt.ids else Job([bos])
            for prompt in self.prompts
        ]

    def make_sampling_jobs(self) -> list[Job]:
        """Return a job for each prompt."""
        request = self.request
        if self.length == 0 or request.suffix:
            return []
        filters, bos = replace(request.filters, length=self.length), self.model.vocabulary.bos
        return [
            Job(
                [bos, *prompt.ids],
                filters,
                make_samples(self.header.seed, request.n, request.stops),
                top=request.logprobs,
            )
            for prompt in self.prompts
        ]

    def respond(self) -> Response:
        """Start the work and return the response."""
        self.scoring.start()
        self.sampling.start()
        return EventStream(self.stream(), self.cancel) if self.request.stream else DelayedJSON(self.run(), self.cancel)

    def cancel(self) -> None:
        self.scoring.cancel()
        self.sampling.cancel()

    async def run(self) -> dict[str, Any]:
        """Return the whole response."""
        await self.begin_choices()
        async for outputs in self.sampling.outputs():
            for number, fragment, score in outputs:
                self.choice_of(number, fragment.index).add(fragment, score)
        return self.header.wrap([choice.take() for choice in self.choices], self.count_usage())

    async def stream(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the response in pieces."""
        await self.begin_choices()
        for choice in self.choices:
            if choice.has_news:
                yield self.header.wrap([choice.take()], None)
        async for outputs in self.sampling.outputs():
            changed = {}
            for number, fragment, score in outputs:
                choice = self.choice_of(number, fragment.index)
                choice.add(fragment, score)
                changed[choice.index] = choice
            for choice in changed.values():
                if choice.has_news:
                    yield self.header.wrap([choice.take()], None)
        if self.request.includes_usage:
            yield self.header.wrap([], self.count_usage())

    async def begin_choices(self) -> None:
        """Add what the texts have before anything is drawn: the scored prompts, or the fillings before a suffix."""
        if self.request.suffix:
            await self.fill_choices()
            return
        await self.scoring.finish()
        scores = [job.prompt_scores for job in self.scoring.jobs]
        offsets = await asyncio.to_thread(self.locate_prompts) if scores else []
        for choice in self.choices:
            number = choice.index // self.request.n
            if self.request.echo:
                prompt = self.prompts[number]
                scored = (scores[number], offsets[number]) if scores else ([], [])
                choice.add_prompt(prompt.text, *scored, starts=prompt.starts)
            if not self.sampling.jobs:
                choice.finish_reason = "length"

    def locate_prompts(self) -> list[list[int]]:
        """Return the offsets of the symbols of each prompt, in its text."""
        return [prompt.find_offsets(self.model, self.request.unknown) for prompt in self.prompts]

    async def fill_choices(self) -> None:
        """Fill the gap between each prompt and the suffix. There are fewer choices if fewer fillings are found."""
        request, filled = self.request, []
        longest = DEFAULT_GAP if request.max_tokens is None else request.max_tokens
        for number, prompt in enumerate(self.prompts):
            found = await self.filling.fill(
                self.model,
                prompt.text,
                request.suffix,
                longest,
                request.n,
                seed=self.header.seed,
                unknown=request.unknown,
            )
            for sample, text in enumerate(found):
                choice = self.choice_of(number, sample)
                choice.text, choice.finish_reason = cut_at_stop(text, request.stops), "stop"
                self.filled += len(text)
                filled.append(choice)
        self.choices = filled

    def choice_of(self, prompt: int, sample: int) -> Choice:
        return self.choices[prompt * self.request.n + sample]

    def count_usage(self) -> dict[str, int]:
        read = sum(prompt.count for prompt in self.prompts)
        written = self.filled + sum(sample.drawn for job in self.sampling.jobs for sample in job.samples)
        return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}
