"""Functions that numba has compiled, kept as machine code in the cache folder and loaded by llvmlite alone.

Importing numba takes half a second or more, and loading a function from numba's own cache another tenth; llvmlite is
imported in less than a tenth, and loads machine code in a millisecond.
"""

from __future__ import annotations

import base64
import contextlib
import ctypes
import hashlib
import json
import os
from collections.abc import Callable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

from llvmlite import binding as llvm

from charlstm.storage.cache import compiled_folder, identify_modules
from charlstm.storage.files import open_atomically

CODE_FORMAT = 1
"""Part of the folder's name: increase it when compiled functions take their arguments in another way."""

NativeFunction = Callable[..., int]
"""A function of addresses, which are ints. It releases the global interpreter lock."""


class MachineCode(NamedTuple):
    """An object file with one function, which takes `arguments` addresses, and the function's name in it."""

    symbol: str
    arguments: int
    object_file: bytes


class CodeStore:
    """The machine code of the functions of a package, for this processor and the present state of the modules."""

    def __init__(self, package: Path) -> None:
        folder = compiled_folder()
        self.folder = folder / identify_modules(package) / processor_name() if folder else None

    def is_empty(self) -> bool:
        """Return whether no function was saved, although there could be some."""
        with contextlib.suppress(OSError):  # the folder belongs to another user
            return self.folder is not None and not any(self.folder.glob("*.json"))
        return False

    def load(self, name: str) -> NativeFunction | None:
        """Return a function that was saved, or None."""
        if self.folder is None:
            return None
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError, RuntimeError):  # missing or damaged
            found = json.loads(self.path(name).read_bytes())
            code = MachineCode(found["symbol"], found["arguments"], base64.b64decode(found["object_file"]))
            return link(code)
        return None

    def find(self, name: str, compile_code: Callable[[], MachineCode]) -> NativeFunction:
        """Return a function that was saved or, if there is none, that is compiled now, and save it."""
        return self.load(name) or self.save(name, compile_code())

    def save(self, name: str, code: MachineCode) -> NativeFunction:
        """Save a function if the folder can be written to, and return it."""
        if self.folder is not None:
            content = {**code._asdict(), "object_file": base64.b64encode(code.object_file).decode()}
            with contextlib.suppress(OSError):
                self.folder.mkdir(parents=True, exist_ok=True)
                with open_atomically(self.path(name)) as file:
                    file.write(json.dumps(content).encode())
        return link(code)

    def path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / f"{name}.json"


@cache
def processor_name() -> str:
    """Return a name for this processor as LLVM sees it, and for the versions of what has compiled the code."""
    features = sorted(llvm.get_host_cpu_features().items())
    chosen = [os.environ.get(name) for name in ("NUMBA_CPU_NAME", "NUMBA_CPU_FEATURES", "NUMBA_OPT")]
    versions = [version(name) for name in ("llvmlite", "numba", "numpy")]
    about = repr((CODE_FORMAT, llvm.get_host_cpu_name(), features, chosen, versions))
    return hashlib.sha256(about.encode()).hexdigest()[:16]


def link(code: MachineCode) -> NativeFunction:
    """Load machine code into this process. It stays for the lifetime of the process.

    Each function has an engine of its own: numba numbers functions per process, so that two of them that were compiled
    in different processes may have the same symbol.
    """
    engine = create_engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(code.object_file))
    engine.finalize_object()
    kind = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_size_t] * (2 + code.arguments))
    function = kind(engine.get_function_address(code.symbol))
    unused = ctypes.create_string_buffer(16)  # where numba's functions put a result, and the place of an exception
    first, second = ctypes.addressof(unused), ctypes.addressof(unused) + 8

    def call(*addresses: int, _owner: Any = (engine, unused)) -> int:
        status: int = function(first, second, *addresses)
        return status

    return call


def create_engine() -> Any:
    """Return a new execution engine of LLVM."""
    initialize_target()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    machine = target.create_target_machine(codemodel="jitdefault")
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


@cache
def initialize_target() -> None:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
