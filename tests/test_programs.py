"""With other programs: what `make test-all` adds to `make test` (the programs are in packages.txt)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.command_line import charlstm

COMPRESSORS = ("gzip", "bzip2", "xz", "zstd")
TRAIN = f"{sys.executable} -m charlstm train --hidden 8 --batch-size 2 --seq-len 16 --epochs 1 --no-samples -q"


def run_in_shell(command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, env=os.environ)


@pytest.mark.programs
@pytest.mark.parametrize("program", COMPRESSORS)
def test_a_file_that_a_compressor_wrote_is_read_like_the_text(program: str, corpus: Path) -> None:
    packed = corpus.with_name(f"compressed.{program}")
    packed.write_bytes(subprocess.run([program, "-c", corpus], check=True, stdout=subprocess.PIPE).stdout)
    plain, compressed = (charlstm("corpus", path, "--json") for path in (corpus, packed))
    assert compressed.code == 0, compressed.err
    assert compressed.out == plain.out


@pytest.mark.programs
@pytest.mark.parametrize("program", COMPRESSORS)
def test_a_stream_of_a_compressor_can_be_trained_on(program: str, corpus: Path) -> None:
    done = run_in_shell(f"{program} -c {corpus} | {TRAIN} - -o piped && {TRAIN} <({program} -c {corpus}) -o named")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "piped\nnamed\n"
    weights = [Path(run, "last.safetensors").stat().st_size for run in ("piped", "named")]
    assert weights[0] == weights[1]


@pytest.mark.programs
def test_a_sample_goes_through_other_programs_and_back(run: Path) -> None:
    sample = f"{sys.executable} -m charlstm sample -m {run} --seed 1 -l 400 -q"
    done = run_in_shell(f"cmp <({sample}) <({sample} | zstd -c | zstd -dc) && {sample} -l 0 | head -c 100 | wc -c")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "100"
