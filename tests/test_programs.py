"""With other programs: what `make test-all` adds to `make test` (the programs are in packages.txt)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.faults import damaged_archives
from tests.support.command_line import charlstm
from tests.support.texts import ENGLISH

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
def test_a_damaged_archive_is_an_error_or_read_as_its_program_reads_it() -> None:
    counts = damaged_archives.compare_with_programs(800, seed=2, largest=300_000)
    assert counts.recognizable > 266
    assert counts.accepted == counts.equal + counts.undefined
    assert counts.equal > 100
    assert counts.undefined < 5
    assert counts.accepted_here_only.total() == 0


@pytest.mark.programs
@pytest.mark.parametrize("threads", [1, 4])
def test_a_file_of_pzstd_is_read_like_the_text(threads: int, corpus: Path) -> None:
    done = run_in_shell(f"pzstd -q -p {threads} -c {corpus} > x.zst && head -c 4 x.zst | od -An -tx1")
    assert done.stdout.split() == ["50", "2a", "4d", "18"], done.stderr
    plain, compressed = (charlstm("corpus", path, "--json") for path in (corpus, "x.zst"))
    assert compressed.code == 0, compressed.err
    assert compressed.out == plain.out


@pytest.mark.programs
@pytest.mark.parametrize(
    "make",
    ["(xz -c a; head -c 8 /dev/zero; xz -c b)", "(xz -c a; xz -c b; head -c 4 /dev/zero)", "(bzip2 -c a; bzip2 -c b)"],
)
def test_an_archive_of_several_streams_is_read_like_the_text(make: str) -> None:
    Path("a").write_text(ENGLISH[:5000])
    Path("b").write_text(ENGLISH[5000:9000])
    assert run_in_shell(f"cat a b > plain && {make} > compressed").returncode == 0
    plain, compressed = (charlstm("corpus", path, "--json") for path in ("plain", "compressed"))
    assert compressed.code == 0, compressed.err
    assert compressed.out == plain.out


@pytest.mark.programs
@pytest.mark.parametrize(
    "pack", ["tar -cf x t.txt", "tar -czf x t.txt", "tar -cJf x t.txt", "xz --format=lzma -c t.txt > x"]
)
def test_the_command_of_the_error_extracts_the_text(pack: str) -> None:
    Path("t.txt").write_text(ENGLISH[:5000])
    assert run_in_shell(pack).returncode == 0
    failed = charlstm("corpus", "x")
    assert failed.code == 1
    command = failed.err.partition("extract its text: ")[2]
    assert run_in_shell(command).stdout == ENGLISH[:5000]


@pytest.mark.programs
def test_a_sample_goes_through_other_programs_and_back(run: Path) -> None:
    sample = f"{sys.executable} -m charlstm sample -m {run} --seed 1 -l 400 -q"
    done = run_in_shell(f"cmp <({sample}) <({sample} | zstd -c | zstd -dc) && {sample} -l 0 | head -c 100 | wc -c")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "100"
