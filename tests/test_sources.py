"""The sources of a corpus: files, folders, pipes and archives, and the errors about them."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import resource
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from backports import zstd

from charlstm.config import DataConfig
from charlstm.data import sources
from charlstm.data.compression import PIECE_BYTES, decompress, detect_compression
from charlstm.data.corpus import Corpus, derive_run_name, read_corpus
from charlstm.errors import CharlstmError, UsageError
from charlstm.storage.spool import Spool
from tests.support.command_line import assert_fails, charlstm
from tests.support.texts import ENGLISH, SMALL

pytestmark = pytest.mark.slow

COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstd.compress,
}


def corpus(*names: object, stdin: bytes | None = None, **settings: object) -> Corpus:
    config = DataConfig(corpus=tuple(map(str, names)), **settings)  # type: ignore[arg-type]
    return read_corpus(config, io.BytesIO(stdin) if stdin is not None else None)


def read(*names: object, stdin: bytes | None = None, **settings: object) -> str | bytes:
    found = corpus(*names, stdin=stdin, **settings)
    text = found.vocabulary.decode(found.ids)
    return text if found.vocabulary.level == "byte" else text.decode()


def test_a_folder_is_read_as_its_text_files_in_order(tmp_path: Path) -> None:
    (tmp_path / "deep" / "er").mkdir(parents=True)
    for name, text in {"b.txt": "B", "a.txt": "A\n", "deep/er/c.txt": "C", "d.md": "no"}.items():
        (tmp_path / name).write_text(text)
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv" / "license.txt").write_text("hidden")
    assert read(tmp_path) == "A\nB\nC\n"
    assert read(tmp_path / "b.txt", "-", stdin=b"piped") == "B\npiped\n"
    assert read(tmp_path, level="byte") == b"A\nBC"
    assert read(tmp_path, glob="*.md") == "no"
    assert read(tmp_path, separator="\n--\n") == "A\n\n--\nB\n--\nC"
    assert read(tmp_path, separator="|", level="byte") == b"A\n|B|C"
    with pytest.raises(UsageError, match=r"contains no \*\.rst file; .*--glob"):
        read(tmp_path, glob="*.rst")
    with pytest.raises(UsageError, match="--glob must be a pattern"):
        read(tmp_path, glob="/etc/*")


def test_a_folder_is_searched_whatever_the_case_and_the_files_left_out_are_counted() -> None:
    Path("books/.git").mkdir(parents=True)
    for name in ("a.txt", "B.TXT", "c.Txt", "d.md", "e.text", ".hidden.txt", ".git/f"):
        Path("books", name).write_text(f"{name}\n")
    Path("books/gone.txt").symlink_to("nowhere")
    for command in (("train", "books", "--dry-run", *SMALL), ("corpus", "books"), ("corpus", ".")):
        shown = charlstm(*command)
        assert "read 3 files, skipped 2 not matching *.txt, 2 hidden, 1 broken links" in shown.err
        assert shown.err.count("skipped") == 1
    assert read("books") == "B.TXT\na.txt\nc.Txt\n"
    assert read("books", glob="[A-C].t[X]t") == "B.TXT\na.txt\nc.Txt\n"
    assert read(".", glob="BOOKS/*.MD") == "d.md\n"
    assert "skipped" not in charlstm("corpus", "books/d.md").err
    assert "skipped" not in charlstm("corpus", "books", "-q").err


def test_a_folder_that_cannot_be_listed_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("books/closed").mkdir(parents=True)
    Path("books/a.txt").write_text("A\n")
    Path("books/closed").chmod(0)
    if os.geteuid() == 0:  # root can list every folder
        monkeypatch.setattr(os, "walk", walk_into_closed)
    assert_fails(charlstm("corpus", "books"), 2, "cannot read the folder books/closed: Permission denied")


def walk_into_closed(_: Path, onerror: Callable[[OSError], None]) -> list[object]:
    onerror(PermissionError(13, "Permission denied", "books/closed"))
    return []


def test_a_single_file_is_read_unchanged(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes(b"no newline\nat the end")
    assert read(tmp_path / "x.txt") == "no newline\nat the end"


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_compressed_file_is_decompressed_whatever_its_name(kind: str, tmp_path: Path) -> None:
    text = ENGLISH[:100_000]
    (tmp_path / "compressed.txt").write_bytes(COMPRESSORS[kind](text.encode()))
    assert read(tmp_path / "compressed.txt") == text
    assert read("-", stdin=COMPRESSORS[kind](text.encode())) == text
    assert read(tmp_path / "compressed.txt", level="byte") == text.encode()


def test_compressed_and_plain_files_can_be_mixed() -> None:
    Path("a.gz").write_bytes(gzip.compress(b"A\n"))
    Path("b.txt").write_text("B\n")
    assert read("a.gz", "b.txt", "-", stdin=zstd.compress(b"C\n")) == "A\nB\nC\n"


def skippable_frame(content: bytes) -> bytes:
    return struct.pack("<II", 0x184D2A50, len(content)) + content


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_every_stream_of_a_compressed_file_is_read(kind: str) -> None:
    texts = ["\ufeff", "", "a", ENGLISH[:70_000], "", ENGLISH[:3], "z\n" * 500_000]
    data = b"".join(COMPRESSORS[kind](text.encode()) for text in texts)
    Path("x.txt").write_bytes(data)
    assert read("x.txt") == "".join(texts[1:])
    assert read("-", stdin=data) == "".join(texts[1:])


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_small_file_that_holds_a_large_text_is_decompressed_in_small_pieces(kind: str) -> None:
    data = COMPRESSORS[kind](b"x" * 20_000_000)
    found = detect_compression(data)
    assert found
    sizes = [len(piece) for piece in decompress(io.BufferedReader(io.BytesIO(data)), found, "x")]
    assert len(data) < 40_000
    assert sum(sizes) == 20_000_000
    assert max(sizes) <= PIECE_BYTES


@pytest.mark.parametrize(
    ("kind", "between", "after"),
    [("xz", 4, 0), ("xz", 8, 4), ("xz", 0, 4), ("xz", 200_000, 200_000), ("gzip", 0, 1), ("gzip", 0, 200_001)],
)
def test_padding_that_the_format_allows_is_skipped(kind: str, between: int, after: int) -> None:
    first, second = (COMPRESSORS[kind](text.encode()) for text in (ENGLISH[:5000], ENGLISH[5000:9000]))
    Path("x.txt").write_bytes(first + bytes(between) + second + bytes(after))
    assert read("x.txt") == ENGLISH[:9000]


@pytest.mark.parametrize(
    ("kind", "between", "after"),
    [("xz", 1, 0), ("xz", 0, 6), ("xz", 3, 4), ("gzip", 4, 0), ("bzip2", 4, 0), ("bzip2", 0, 1), ("zstd", 0, 4)],
)
def test_padding_that_the_format_does_not_allow_is_an_error(kind: str, between: int, after: int) -> None:
    first, second = (COMPRESSORS[kind](text.encode()) for text in (ENGLISH[:5000], ENGLISH[5000:9000]))
    Path("x.txt").write_bytes(first + bytes(between) + second + bytes(after))
    message = f"x.txt is a broken {kind} archive: what follows byte "
    assert_fails(charlstm("corpus", "x.txt"), 1, message, "is neither a stream nor padding")


def test_files_of_pzstd_which_begin_with_a_skippable_frame_are_read(run: Path) -> None:
    text = ENGLISH[:4000]
    half = (zstd.compress(text[:2000].encode()), zstd.compress(text[2000:].encode()))
    data = skippable_frame(b"\0\1\2\3") + half[0] + skippable_frame(b"") + half[1] + skippable_frame(b"end" * 50_000)
    Path("x.zst").write_bytes(data)
    assert read("x.zst") == text
    for command in (("corpus", "--json"), ("eval", "-m", run, "--json")):
        plain, compressed = (charlstm(*command, "-", stdin=stdin) for stdin in (text.encode(), data))
        assert compressed.code == 0, compressed.err
        assert compressed.out == plain.out
    Path("x.zst").write_bytes(half[0] + skippable_frame(b"0123456789")[:-1])
    assert_fails(charlstm("corpus", "x.zst"), 1, "x.zst is a broken zstd archive: it ends too early")


def test_a_zstd_file_that_needs_much_memory_is_an_error_with_a_command() -> None:
    compressor = zstd.ZstdCompressor(options={zstd.CompressionParameter.window_log: 30})
    Path("x.txt").write_bytes(compressor.compress(ENGLISH.encode()) + compressor.flush())
    assert_fails(charlstm("corpus", "x.txt"), 1, "x.txt needs more than 128 MB of memory", "zstd -d --long=31")


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_broken_archive_is_an_error_that_names_it(kind: str) -> None:
    data = COMPRESSORS[kind](ENGLISH.encode())
    Path("short.txt").write_bytes(data[: len(data) // 2])
    assert_fails(charlstm("train", "short.txt", *SMALL), 1, f"short.txt is a broken {kind} archive")
    garbled = bytearray(data)
    for at in range(len(data) // 3, len(data) // 3 + 40):
        garbled[at] ^= 0x5A
    Path("bad.txt").write_bytes(bytes(garbled))
    assert_fails(charlstm("train", "bad.txt", *SMALL), 1, f"bad.txt is a broken {kind} archive")


@pytest.mark.parametrize("kind", COMPRESSORS)
@pytest.mark.parametrize("damage", ["magic", "header", "first block", "end", "truncated", "garbage"])
def test_text_is_never_lost_silently_where_a_later_stream_is_damaged(kind: str, damage: str, run: Path) -> None:
    first, second = (COMPRESSORS[kind](text.encode()) for text in (ENGLISH[:20_000], ENGLISH[:9000]))
    later = bytearray(second + first)
    if damage == "truncated":
        del later[7:]
    elif damage == "garbage":
        later = bytearray(b"garbage")
    else:
        at = {"magic": 1, "header": 4 if kind != "gzip" else 2, "first block": 30, "end": len(second) - 3}[damage]
        later[at : at + 3] = bytes(byte ^ 0x5A for byte in later[at : at + 3])
    Path("x.txt").write_bytes(first + later)
    for command in (("train", "-o", "new", *SMALL), ("eval", "-m", run), ("score", "-m", run), ("corpus",)):
        assert_fails(charlstm(*command, "x.txt"), 1, f"x.txt is a broken {kind} archive: ")
        assert_fails(charlstm(*command, "-", stdin=first + later), 1, f"stdin is a broken {kind} archive: ")


def test_missing_and_empty_sources_are_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"corpus not found: .*nothing\.txt"):
        read(tmp_path / "nothing.txt")
    with pytest.raises(UsageError, match=r"contains no \*\.txt file"):
        read(tmp_path)
    with pytest.raises(UsageError, match="stdin is closed"):
        read("-")
    (tmp_path / "empty.txt").touch()
    with pytest.raises(CharlstmError, match=r"the corpus is empty: .*empty\.txt"):
        read(tmp_path / "empty.txt")


def test_a_file_without_read_permission_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("secret.txt").write_text(ENGLISH[:2000])
    Path("secret.txt").chmod(0)
    if os.geteuid() == 0:  # root can read every file
        monkeypatch.setattr(sources, "open_source", deny)
    assert_fails(charlstm("train", "secret.txt"), 2, "cannot read", "secret.txt", "Permission denied")


def deny(source: str, _: object) -> None:
    raise PermissionError(13, "Permission denied", source)


@pytest.fixture
def small_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make every text too large to keep in memory, and return a temporary cache folder."""
    for module in ("storage.spool", "data.corpus", "data.external"):
        monkeypatch.setattr(f"charlstm.{module}.MAX_IN_MEMORY", 100)
    monkeypatch.setenv("CHARLSTM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_text_too_large_for_memory_has_the_same_ids(small_memory: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:5000], "utf-8")
    large = corpus("x.txt")
    assert large.vocabulary.decode(large.ids).decode() == ENGLISH[:5000]
    assert [path.suffix for path in small_memory.iterdir() if path.is_file()] == [".npy"]


def test_a_changed_text_is_not_read_from_the_cache(small_memory: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:5000], "utf-8")
    times = Path("x.txt").stat()
    first = corpus("x.txt")
    Path("x.txt").write_text(ENGLISH[1:5001], "utf-8")
    os.utime("x.txt", ns=(times.st_atime_ns, times.st_mtime_ns))
    again = corpus("x.txt")
    assert again.vocabulary.decode(again.ids).decode() == ENGLISH[1:5001]
    assert first.fingerprint != again.fingerprint
    assert len(list(small_memory.iterdir())) == 2
    assert corpus("x.txt", min_count=3).vocabulary.size < again.vocabulary.size
    assert len(list(small_memory.iterdir())) == 3


@pytest.mark.parametrize("change", ["grown", "other", "gone"])
def test_a_file_that_changes_between_the_readings_is_an_error_and_leaves_no_cache(
    change: str, small_memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = Path("x.txt")
    path.write_text(ENGLISH[:5000], "utf-8")

    def meddle(*_: object) -> None:
        if change == "gone":
            path.unlink(missing_ok=True)  # the cache is asked again once it is locked
        else:
            path.write_text(ENGLISH[:5100] if change == "grown" else ENGLISH[:4999] + "e", "utf-8")

    monkeypatch.setattr("charlstm.storage.cache.load_ids", meddle)
    with pytest.raises(CharlstmError, match="cannot read" if change == "gone" else "changed while it was read"):
        corpus("x.txt")
    assert list(small_memory.iterdir()) == []


def test_a_damaged_cache_file_is_written_again(small_memory: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:5000], "utf-8")
    corpus("x.txt")
    (store,) = small_memory.iterdir()
    whole = store.read_bytes()
    for broken in (b"", whole[:50], whole[:-1], b"\x93NUMPY" + bytes(200)):
        store.write_bytes(broken)
        corpus("x.txt")
        assert store.read_bytes() == whole


def test_a_cache_folder_that_cannot_be_written_is_an_error(small_memory: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:5000], "utf-8")
    small_memory.write_text("a file, where the folder should be")
    assert_fails(charlstm("train", "x.txt", *SMALL), 1, "cannot write", "set CHARLSTM_CACHE to use another one")
    small_memory.unlink()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(CharlstmError, match=r"cannot write .*CHARLSTM_CACHE"):
            corpus("x.txt")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(small_memory.iterdir()) == []


def test_a_large_text_from_stdin_moves_from_the_cache_to_the_run_folder(small_memory: Path) -> None:
    trained = charlstm("train", "-", *SMALL, "--epochs", 1, "-o", "run", stdin=ENGLISH[:4000].encode())
    assert trained.code == 0, trained.err
    assert Path("run/stdin.txt").read_text("utf-8") == ENGLISH[:4000]
    assert [path.suffix for path in small_memory.iterdir() if path.is_file()] == [".npy"]
    assert charlstm("train", "--resume", "-o", "run", "--epochs", 2).code == 0
    assert charlstm("eval", "-m", "run").code == 0


def test_a_large_text_from_stdin_is_removed_if_training_fails(small_memory: Path) -> None:
    assert_fails(charlstm("train", "-", "--batch-size", 4000, stdin=ENGLISH[:4000].encode()), 1, "--batch-size")
    piped = Spool.from_stream(io.BytesIO(b"x" * 4000))
    assert list(small_memory.glob("stdin-*"))
    del piped
    assert not list(small_memory.glob("stdin-*"))


def test_the_cache_can_be_shown_and_cleared(small_memory: Path) -> None:
    assert "bytes   0" in charlstm("show", "cache").text
    Path("x.txt").write_text(ENGLISH[:5000], "utf-8")
    corpus("x.txt")
    (small_memory / "store-abandoned.part").write_bytes(b"12345")
    (small_memory / "notes.md").write_text("not a cache file")
    shown = charlstm("show", "cache").text
    assert str(small_memory) in shown
    assert "files   2" in shown
    assert charlstm("show", "cache", "--clear").code == 0
    assert [path.name for path in small_memory.iterdir()] == ["notes.md"]


def test_a_text_too_large_for_memory_has_the_same_metrics(run: Path, small_memory: Path) -> None:
    Path("x.txt").write_text(ENGLISH[:3000], "utf-8")
    large = charlstm("eval", "-m", run, "x.txt", "--json")
    assert large.code == 0, large.err
    assert list(small_memory.iterdir()) == [], "the ids are in an unnamed file"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("charlstm.data.external.MAX_IN_MEMORY", 1 << 20)
        assert charlstm("eval", "-m", run, "x.txt", "--json").text == large.text


def test_a_named_pipe_can_be_a_corpus() -> None:
    os.mkfifo("pipe")
    with subprocess.Popen(["bash", "-c", f"head -c 4000 > pipe <<'E'\n{ENGLISH[:4000]}\nE"]):
        trained = charlstm("train", "pipe", *SMALL, "--epochs", 1, "-o", "run")
    assert trained.code == 0, trained.err
    assert Path("run/stdin.txt").stat().st_size == 4000


def test_a_run_is_named_after_its_first_source() -> None:
    assert derive_run_name(["a/novel.txt", "b.txt"]) == "novel"
    assert derive_run_name(["novel.txt.gz"]) == "novel"
    assert derive_run_name(["-"]) == "stdin"


MEMORY = """
import resource, sys, charlstm
from charlstm.config import Config, ModelConfig, TrainingConfig
from charlstm.training.events import Stepped
config = Config(ModelConfig(hidden=16, embedding=8), training=TrainingConfig(device="cpu", save_every=0))
for event in charlstm.train(sys.argv[1], config, sys.argv[2]):
    if isinstance(event, Stepped) and event.step == 30:
        break
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.fixture
def write_text_of(tmp_path: Path) -> Iterator[Callable[[int], Path]]:
    """Return a function that writes a text of N MB."""

    def make(megabytes: int) -> Path:
        path = tmp_path / f"{megabytes}.txt"
        block = ENGLISH[:100_000].encode("utf-8")[:100_000]
        with path.open("wb") as file:
            for _ in range(megabytes * 10):
                file.write(block)
        return path

    yield make
    for path in tmp_path.glob("*.txt"):
        path.unlink()


def test_memory_does_not_grow_with_the_corpus(write_text_of: Callable[[int], Path], tmp_path: Path) -> None:
    def peak(megabytes: int) -> int:
        environ = {**os.environ, "CHARLSTM_CACHE": str(tmp_path / "cache")}
        command = [sys.executable, "-c", MEMORY, str(write_text_of(megabytes)), str(tmp_path / f"run-{megabytes}")]
        return int(subprocess.run(command, env=environ, capture_output=True, check=True).stdout)

    assert peak(300) < peak(2) + 200
