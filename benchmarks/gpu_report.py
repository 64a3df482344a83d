"""The results of gpu.py as Markdown, for docs/benchmarks.md."""

from typing import Any

# Columns of the extraction table: heading, and name in the results.
EXTRACTION = {
    "x real time": "per_s",
    "TFLOP/s": "tflops",
    "of the bf16 peak": "of_peak",
    "bare, of it": "bare_of_peak",
    "GPU busy": "gpu_busy",
    "extract / bare": "extract_over_bare",
    "one by one / extract": "one_over_extract",
    "padded by 16 / extract": "padded_over_extract",
    "padding": "padding",
}


def markdown(results: dict[str, Any]) -> str:
    """The machine, then a table for each kind of step, then what failed."""
    steps, machine = results["steps"], results["machine"]
    lines = [", ".join(f"{key} {value}" for key, value in machine.items() if value is not None) + "."]
    if results["quick"]:
        lines.append("A quick look with tiny models: its figures mean nothing.")
    tests = {key: value for key, value in steps.get("tests", {}).items() if key not in ("error", "seconds")}
    if tests:
        lines.append("Tests: " + ", ".join(f"{count} {word}" for word, count in tests.items()) + ".")
    extracted = {name: step for name, step in steps.items() if "per_s" in step}
    if extracted:
        peak = max(step["bf16_matmul_peak_tflops"] for step in extracted.values())
        precision = " and ".join(sorted({step["precision"] for step in extracted.values()}))
        lines.append(f"Extraction in {precision}; a large bf16 matrix product runs at {peak:.3g} TFLOP/s:")
        rows = [
            [_row(name, step), *(_cell(step.get(key)) for key in EXTRACTION.values())]
            for name, step in extracted.items()
        ]
        lines.append(_table(["backbone", *EXTRACTION], rows))
    if heads := {name: step for name, step in steps.get("retrain", {}).items() if isinstance(step, dict)}:
        columns = ["recompute_s", "cache_s", "ram_s", "recompute_over_cache", "ram_over_cache"]
        lines.append("Training, seconds an epoch:")
        rows = [[name, *(_cell(step[key]) for key in columns)] for name, step in heads.items()]
        lines.append(_table(["head", *columns], rows))
    if clips := {name: step for name, step in steps.get("predict", {}).items() if isinstance(step, dict)}:
        lines.append("A clip of 3 s, milliseconds:")
        rows = [[name, _cell(step["warm_ms"]), _cell(step["bare_ms"])] for name, step in clips.items()]
        lines.append(_table(["precision", "warm Predictor", "bare encoder"], rows))
    if "epoch_s" in (sanet := steps.get("sanet", {})):
        lines.append(f"SANet from scratch: {sanet['epoch_s']} s an epoch of {sanet['clips']} clips.")
    lines += [f"{name} failed: {step['error']}" for name, step in steps.items() if "error" in step]
    return "\n\n".join(lines) + "\n"


def _row(name: str, step: dict[str, Any]) -> str:
    return f"{name} (tokens a second)" if step["kind"] == "mbert" else name


def _cell(value: float | None) -> str:
    """Three significant digits, or a dash."""
    return "–" if value is None else f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
