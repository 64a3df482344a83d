"""The commands that use a trained run: predict, export, enroll, rapid."""

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from stillwave.pipeline.commands.options import Device, TrustRun

RunFolder = Annotated[Path, typer.Option(help="Run folder written by `train` or `finetune`.")]
Backbones = Annotated[
    Path | None,
    typer.Option(help="Folder of backbone configs, for a run that does not record how its frames were made."),
]


def predict(
    run: RunFolder,
    sources: Annotated[
        list[str], typer.Argument(metavar="[FILE|DIR|MANIFEST]...", help="Audio files, folders, manifests.")
    ] = [],  # noqa: B006 - typer reads the default and makes its own list
    text: Annotated[
        str | None,
        typer.Option(help="Transcript of the one FILE, or the only input; manifests have their own."),
    ] = None,
    speaker: Annotated[
        str | None,
        typer.Option(
            help="Who speaks: an enrolled speaker (the name, or the file that `enroll --out` wrote), or a "
            "training speaker of a personalised run."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object per line.")] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV: a row per clip and per segment.")] = False,
    out: Annotated[
        Path | None, typer.Option(help="File to write instead: .csv for CSV, anything else for JSON lines.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="Use only this fold's model, instead of the mean of all.")
    ] = None,
    device: Device = "auto",
    backbones: Backbones = None,
    segment_s: Annotated[
        float | None,
        typer.Option(
            help="Longer audio is cut into segments of this many seconds; default: 30, or the clip_s of the "
            "run's backbone if that is less."
        ),
    ] = None,
    hop_s: Annotated[
        float | None, typer.Option(help="Seconds from one segment to the next; default: half a segment.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Clips that go through the model together.")] = 16,
    trust_run: TrustRun = False,
) -> None:
    """Label new audio, text, or both: probabilities, their entropy, and whether the class is known.

    Results are printed as they come. Clips that cannot be used are listed with the reason, and the command
    then exits with 1 at the end.
    """
    from stillwave.pipeline.predict.clips import check_output, clips_of, files_of
    from stillwave.pipeline.predict.output import Format, shower
    from stillwave.pipeline.predict.predictor import Predictor
    from stillwave.pipeline.predict.results import Failure
    from stillwave.pipeline.runs.run import Run

    if as_json and as_csv:
        raise ValueError("--json and --csv are two formats of the same output; give only one")
    clips = clips_of(sources, text=text, speaker=speaker)
    if out is not None:
        check_output(out, files_of(sources))
    opened = Run.open(run, trusted=trust_run)
    predictor = Predictor.load(opened, fold, backbones, device, speaker, segment_s, hop_s)
    predictor.reader.check_text(text)
    kind: Format = "json"
    if as_csv or (out is not None and out.suffix == ".csv" and not as_json):
        kind = "csv"
    elif not as_json and out is None and sys.stdout.isatty():
        kind = "table"
    done, failed = 0, 0
    file = sys.stdout if out is None else out.open("w", newline="")
    try:
        show = shower(kind, file, predictor.classes)
        for result in predictor.predict_many(clips, batch_size):
            show(result)
            done, failed = done + 1, failed + isinstance(result, Failure)
    finally:
        if out is not None:
            file.close()
    if out is not None:
        typer.echo(f"{out}: {done - failed} clips predicted", err=True)
    if failed:
        typer.echo(f"{failed} of {done} clips could not be predicted", err=True)
        raise typer.Exit(1)


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="File to write, ending in .onnx.")],
    kind: Annotated[Literal["onnx"], typer.Option("--format", help="Only onnx is supported.")] = "onnx",
    quantize: Annotated[
        Literal["int8"] | None, typer.Option(help="Store the weights of matrix products as 8-bit integers.")
    ] = None,
    fold: Annotated[
        int | None, typer.Option(help="Export only this fold's model, instead of the mean of all.")
    ] = None,
    part: Annotated[
        Literal["model", "head"], typer.Option(help="Start from the waveform, or from the backbone's frames.")
    ] = "model",
    backbones: Backbones = None,
    trust_run: TrustRun = False,
) -> None:
    """Write a run as one ONNX file: waveforms in, calibrated probabilities and the open-set score out."""
    from stillwave.pipeline.predict.export import export
    from stillwave.pipeline.runs.run import Run

    opened = Run.open(run, trusted=trust_run)
    file, difference = export(opened, out, part=part, fold=fold, quantize=quantize, backbones=backbones)
    typer.echo(
        f"{file}: {file.stat().st_size / 2**20:.1f} MiB; probabilities of noise differ from the run's by "
        f"at most {difference:.1e}"
    )


def enroll(
    run: RunFolder,
    speaker: Annotated[str, typer.Option(help="Name of the new speaker, for `predict --speaker`.")],
    clips: Annotated[
        Path,
        typer.Option(help="CSV of the speaker's clips: file_path, the label that the run predicts, text."),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write, ending in .safetensors; default: RUN/speakers/SPEAKER.safetensors."
        ),
    ] = None,
    device: Device = "auto",
    backbones: Backbones = None,
    trust_run: TrustRun = False,
) -> None:
    """Adapt a run to a new speaker from a handful of labelled clips; the run is not changed."""
    from stillwave.pipeline.predict.enroll import enroll, read_clips
    from stillwave.pipeline.runs.run import Run

    opened = Run.open(run, trusted=trust_run)
    labelled = read_clips(clips, opened.recipe.label)
    result = enroll(opened, speaker, labelled, out, backbones=backbones, device=device)
    before, after = result.accuracy_before, result.accuracy_after
    verdict = "give two or more clips of a label, to see whether it helps"
    if result.num_seen:
        verdict = f"the run was trained on {result.num_seen} of them, so they cannot show whether it helps"
    if before is not None and after is not None:
        advice = "" if after > before else ". It does not help: predict without --speaker, or give more clips"
        verdict = (
            f"accuracy {before:.3f} without, {after:.3f} on each of {result.num_tested} clips by a model "
            f"enrolled with the other clips{advice}"
        )
    typer.echo(f"{result.file}: {result.num_clips} clips; {verdict}")


def rapid(
    table: Annotated[Path, typer.Argument(help="CSV with columns file_path, word, speaker.")],
    out: Annotated[Path, typer.Option(help="Folder for models, results and runs.")] = Path("runs/rapid"),
    root: Annotated[
        Path | None, typer.Option(help="Folder that the paths are relative to; default: the table's.")
    ] = None,
    speaker_independent: Annotated[
        bool, typer.Option("--speaker-independent", help="Test on whole speakers that were not in training.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the split, the weights and the training.")] = 0,
    device: Device = "auto",
) -> None:
    """Train word models on raw waveforms, with and without speaker identity, and compare them."""
    from stillwave.models.rapid_trainer import RapidTrainer
    from stillwave.pipeline.commands import console

    with console.Watch() as watch:
        trainer = RapidTrainer(
            table,
            out,
            root=root,
            speaker_independent=speaker_independent,
            seed=seed,
            device=device,
            watcher=watch,
        )
        summary = trainer.run_rapid_training()
    basic, personalized = (summary[name]["accuracy"] for name in ("basic_model", "personalized_model"))
    typer.echo(
        f"{out / 'rapid_training_summary.json'}: accuracy {basic:.3f} basic, {personalized:.3f} personalised "
        f"({summary['improvement']:+.3f})"
    )
