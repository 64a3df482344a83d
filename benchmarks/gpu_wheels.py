"""Fetch the wheels that let Stillwave run on a GPU machine with PyTorch but no network.

    python benchmarks/gpu_wheels.py [--python 3.12]

IMAGE lists what the images of such machines have; WHEELS lists what extraction, training, fine-tuning,
evaluation and prediction import in addition, and goes into .whl/ with BUILT, at the versions of
constraints.txt. Copy that folder along with the checkout, and install it there:

    python3 -m pip install --no-index --no-deps --target SITE .whl/*.whl
    export PYTHONPATH=SITE:$PWD/src

tests/benchmarks/test_bare_machine.py runs the GPU benchmarks with only these packages.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

# Their dependencies exist as well; those that Stillwave also needs must be in one of the two lists.
IMAGE = (
    "accelerate", "click", "einops", "filelock", "fsspec", "h5py", "huggingface_hub", "hypothesis", "jinja2",
    "matplotlib", "numpy", "packaging", "pandas", "psutil", "pyarrow", "pytest", "pytest-xdist", "pyyaml",
    "rich", "safetensors", "scikit-learn", "scipy", "tokenizers", "torch", "transformers", "typer",
)  # fmt: skip
WHEELS = (
    "annotated-types", "av", "cffi", "donfig", "google-crc32c", "numcodecs", "pydantic", "pydantic-core",
    "soundfile", "soxr", "typing-inspection", "zarr",
    # Several workers on one GPU:
    "cloudpickle", "dask", "distributed", "locket", "msgpack", "partd", "sortedcontainers", "tblib", "toolz",
    "tornado", "zict",
)  # fmt: skip
BUILT = {"encodec": "0.1.1"}  # pure Python, with only a source package on PyPI; the version is the Makefile's
GLIBC = (17, 24, 27, 28, 31, 34, 35)  # 2.x; pip takes only the tags listed
ROOT = Path(__file__).parents[1]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--python", default="3.12", help="version of Python on that machine")
    arguments = parser.parse_args()
    tags = [f"manylinux_2_{minor}_x86_64" for minor in GLIBC] + ["manylinux2014_x86_64", "manylinux1_x86_64"]
    machine = [f"--python-version={arguments.python}", *(f"--platform={tag}" for tag in tags)]
    shutil.rmtree(ROOT / ".whl", ignore_errors=True)  # pip refuses two versions of one package
    pip("download", "--only-binary=:all:", *machine, "--dest=.whl", "--constraint=constraints.txt", *WHEELS)
    pip("wheel", "--wheel-dir=.whl", *(f"{name}=={version}" for name, version in BUILT.items()))
    wheels = list((ROOT / ".whl").iterdir())
    print(f".whl: {len(wheels)} wheels, {sum(wheel.stat().st_size for wheel in wheels) / 2**20:.1f} MiB")


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", arguments[0], "-q", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*command, *arguments[1:]], cwd=ROOT, check=True)


if __name__ == "__main__":
    main()
