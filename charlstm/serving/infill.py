"""/infill as llama-server has it: what editors ask for the place of the cursor."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from charlstm.config import SamplingConfig, UnknownPolicy
from charlstm.infilling.template import MAX_GAP
from charlstm.serving.errors import ApiError
from charlstm.serving.filling import DEFAULT_GAP, FillingThread, cut_at_stop, cut_context
from charlstm.serving.jobs import Job, make_samples
from charlstm.serving.models import ServedModel
from charlstm.serving.parameters import Fields
from charlstm.serving.thread import BatchThread
from charlstm.serving.work import Work
from charlstm.text_model import draw_seed


@dataclass(frozen=True)
class InfillRequest:
    """A request to /infill."""

    model: str | None
    before: str
    after: str
    n_predict: int
    filters: SamplingConfig
    stops: tuple[str, ...]
    seed: int | None
    unknown: UnknownPolicy
    response_fields: tuple[str, ...]
    """Keys of the response that are wanted, as "content" or "timings/prompt_n"; empty for all."""

    @classmethod
    def parse(cls, values: Mapping[str, Any]) -> InfillRequest:
        """Read the fields of a request. Raises ApiError."""
        fields = Fields(values)
        if fields.get_flag("stream"):
            raise ApiError("stream is not supported by /infill", param="stream")
        n_predict = fields.get_integer("n_predict", DEFAULT_GAP, -1, MAX_GAP)
        n_predict = DEFAULT_GAP if n_predict < 0 else n_predict
        return cls(
            model=fields.get_text("model") if "model" in fields else None,
            before=fields.get_text("input_prefix") + fields.get_text("prompt"),
            after=fields.get_text("input_suffix"),
            n_predict=n_predict,
            filters=fields.get_filters(n_predict),
            stops=fields.get_stops(),
            seed=fields.get_seed(),
            unknown=fields.get_unknown(),
            response_fields=tuple(fields.get_texts("response_fields", 100, 100)),
        )


class Infilling:
    """The work for a request to /infill. Raises ApiError for a text that the model cannot read."""

    def __init__(
        self, stepping: BatchThread, filling: FillingThread, model: ServedModel, request: InfillRequest
    ) -> None:
        self.stepping, self.filling, self.model, self.request = stepping, filling, model, request
        self.before, self.after = cut_context(request.before, request.after)
        self.ids = model.encode(self.before, request.unknown, "input_prefix")
        model.encode(self.after, request.unknown, "input_suffix")
        self.seed = draw_seed() if request.seed is None else request.seed
        self.work: Work | None = None

    async def run(self) -> dict[str, Any]:
        """Return the response: with a text after the cursor a filling, else a continuation."""
        started = monotonic()
        if not self.request.n_predict:
            content = ""
        elif self.after.strip():
            content = await self.fill()
        else:
            content = await self.continue_text()
        milliseconds = (monotonic() - started) * 1000
        timings = {"prompt_n": len(self.ids), "predicted_n": len(content), "predicted_ms": round(milliseconds, 3)}
        response = {"content": content, "model": self.model.name, "seed": self.seed, "stop": True, "timings": timings}
        return select_fields(response, self.request.response_fields)

    async def fill(self) -> str:
        request = self.request
        found = await self.filling.fill(
            self.model, self.before, self.after, request.n_predict, 1, seed=self.seed, unknown=request.unknown
        )
        return cut_at_stop(found[0], request.stops)

    async def continue_text(self) -> str:
        request = self.request
        samples = make_samples(self.seed, 1, request.stops)
        job = Job([self.model.vocabulary.bos, *self.ids], request.filters, samples)
        self.work = Work(self.stepping, self.model.sampling, [job])
        self.work.start()
        text = b""
        async for outputs in self.work.outputs():
            text += b"".join(fragment.text for _, fragment, _ in outputs)
        return text.decode("utf-8", "replace")

    def cancel(self) -> None:
        if self.work is not None:
            self.work.cancel()


def select_fields(response: Mapping[str, Any], wanted: tuple[str, ...]) -> dict[str, Any]:
    """Return these keys of a response, or all. "timings/prompt_n" is a key of an object in it."""
    flat = dict(response)
    for name, value in response.items():
        if isinstance(value, dict):
            flat |= {f"{name}/{key}": each for key, each in value.items()}
    return {name: flat[name] for name in wanted if name in flat} if wanted else dict(response)
