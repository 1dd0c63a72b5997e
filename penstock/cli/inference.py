"""The verbs that run a model: classify, entities, detect, predict, embed, generate."""

from __future__ import annotations

import sys
from dataclasses import asdict
from typing import Annotated, Any

import typer

from penstock.cli import output, sources
from penstock.cli.session import session
from penstock.client import Client
from penstock.errors import PermissionDenied

Model = Annotated[str, typer.Argument(help="The model's name.")]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; - reads lines from stdin.")]
TextFile = Annotated[str | None, typer.Option("--file", "-f", help="One text a line; - is stdin.")]
Version = Annotated[str, typer.Option(help="Pin a version of the model.")]
Timeout = Annotated[float | None, typer.Option(help="Deadline in seconds.", min=0.001)]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
MinScore = Annotated[float, typer.Option(help="Leave out what scores lower.", min=0.0, max=1.0)]


def classify(
    context: typer.Context,
    model: Model,
    texts: Texts = None,
    file: TextFile = None,
    image: Annotated[list[str] | None, typer.Option(help="An image file; - is stdin.")] = None,
    top_k: Annotated[int, typer.Option(help="Labels an input; 0 gives all.", min=0)] = 3,
    version: Version = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Ranks labels for texts or images."""
    with session(context, as_json) as client:
        if image:
            names = image
            images = [sources.image(path) for path in image]
            results = client.classify(
                model, images=images, top_k=top_k, version=version, timeout=timeout
            )
        else:
            names = sources.texts(texts or (), file)
            results = client.classify(model, names, top_k=top_k, version=version, timeout=timeout)
    if as_json:
        _print_results([asdict(result) for result in results], results)
        return
    table = output.new_table("input", "label", "#confidence", "then")
    for name, result in zip(names, results, strict=True):
        then = ", ".join(f"{label.label} {label.confidence:.3f}" for label in result.labels[1:])
        confidence = f"{result.confidence:.3f}"
        output.add_row(table, output.shortened(name), result.label, confidence, then)
    output.show(table)
    output.print_footer(results.metadata)


def entities(
    context: typer.Context,
    model: Model,
    texts: Texts = None,
    file: TextFile = None,
    min_score: MinScore = 0.0,
    version: Version = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Finds labelled spans in texts."""
    with session(context, as_json) as client:
        given = sources.texts(texts or (), file)
        results = client.extract_entities(
            model, given, min_score=min_score, version=version, timeout=timeout
        )
    if as_json:
        _print_results([{"entities": [asdict(e) for e in found]} for found in results], results)
        return
    table = output.new_table("input", "label", "text", "#from", "#to", "#score")
    for text, found in zip(given, results, strict=True):
        for e in found:
            cells = (e.label, e.text, e.start, e.end, f"{e.score:.3f}")
            output.add_row(table, output.shortened(text, 40), *cells)
        if not found:
            output.add_row(table, output.shortened(text, 40), "-")
    output.show(table)
    output.print_footer(results.metadata)


def detect(
    context: typer.Context,
    model: Model,
    images: Annotated[list[str], typer.Argument(help="Image files; - is stdin.")],
    min_score: MinScore = 0.3,
    max_detections: Annotated[int, typer.Option(help="Objects an image.", min=0)] = 0,
    version: Version = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Finds labelled boxes, in pixels, in images."""
    with session(context, as_json) as client:
        results = client.detect_objects(
            model,
            [sources.image(path) for path in images],
            min_score=min_score,
            max_detections=max_detections,
            version=version,
            timeout=timeout,
        )
    if as_json:
        _print_results([asdict(result) for result in results], results)
        return
    table = output.new_table("image", "label", "#score", "#left", "#top", "#right", "#bottom")
    for path, result in zip(images, results, strict=True):
        for found in result:
            corners = (f"{edge:.1f}" for edge in found.box)
            output.add_row(table, path, found.label, f"{found.score:.3f}", *corners)
        if not result.objects:
            output.add_row(table, path, "-")
    output.show(table)
    output.print_footer(results.metadata)


def predict(
    context: typer.Context,
    model: Model,
    row: Annotated[list[str] | None, typer.Option(help='Such as {"amount": 12}.')] = None,
    csv: Annotated[str | None, typer.Option(help="CSV file with a header; - is stdin.")] = None,
    version: Version = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Scores rows of named features."""
    with session(context, as_json) as client:
        if bool(row) == bool(csv):
            raise ValueError("give either --row (once or more often) or --csv")
        rows: list[Any] = [sources.json_row(text) for text in row or ()]
        if csv:
            rows = list(sources.csv_rows(csv, _categories(client, model)))
        results = client.predict(model, rows, version=version, timeout=timeout)
    if as_json:
        _print_results([asdict(result) for result in results], results)
        return
    table = output.new_table("#row", "label", "#score", "probabilities")
    for number, result in enumerate(results, 1):
        all_of_them = (f"{label} {p:.3f}" for label, p in result.probabilities.items())
        label = result.label or "-"
        output.add_row(table, number, label, f"{result.score:.4g}", ", ".join(all_of_them))
    output.show(table)
    output.print_footer(results.metadata)


def _categories(client: Client, model: str) -> set[str] | None:
    """The features that are categories: in a CSV file, a postcode looks like a number."""
    try:
        signature = client.models.get(model).signature
    except PermissionDenied:
        return None
    return {feature.name for feature in signature.features if feature.categories}


def embed(
    context: typer.Context,
    model: Model,
    texts: Texts = None,
    file: TextFile = None,
    dimensions: Annotated[int, typer.Option(help="Leading dimensions to keep.", min=0)] = 0,
    truncate: Annotated[bool, typer.Option("--truncate", help="Cut texts too long.")] = False,
    version: Version = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Turns texts into vectors; --json prints them whole."""
    with session(context, as_json) as client:
        given = sources.texts(texts or (), file)
        vectors = client.embed(
            model,
            given,
            dimensions=dimensions,
            truncate=truncate,
            version=version,
            timeout=timeout,
        )
    if as_json:
        each = zip(vectors, vectors.tokens, vectors.truncated, strict=True)
        _print_results(
            [{"vector": v, "tokens": tokens, "truncated": cut} for v, tokens, cut in each], vectors
        )
        return
    table = output.new_table("input", "#tokens", "#dimensions", "vector")
    for text, vector, tokens in zip(given, vectors, vectors.tokens, strict=True):
        start = output.numbers(vector[:4]) + ", …"
        output.add_row(table, output.shortened(text, 40), tokens, len(vector), start)
    output.show(table)
    output.print_footer(vectors.metadata)


def generate(
    context: typer.Context,
    model: Model,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; - is stdin.")] = None,
    file: Annotated[str | None, typer.Option("--file", "-f", help="Holds the prompt.")] = None,
    chat: Annotated[bool, typer.Option("--chat", help="Send it as a chat message.")] = False,
    system: Annotated[str, typer.Option(help="Standing instructions of a chat.")] = "",
    max_tokens: Annotated[int | None, typer.Option(min=1)] = None,
    temperature: Annotated[float | None, typer.Option(min=0.0, max=2.0)] = None,
    top_p: Annotated[float | None, typer.Option(min=0.0, max=1.0)] = None,
    top_k: Annotated[int | None, typer.Option(min=0)] = None,
    stop: Annotated[list[str] | None, typer.Option(help="End before this text.")] = None,
    seed: Annotated[int | None, typer.Option(help="Repeat the same sampling.")] = None,
    version: Version = "",
    timeout: Timeout = None,
    as_json: Json = False,
) -> None:
    """Continues a prompt or answers a chat, token by token; Ctrl-C stops it."""
    with session(context, as_json) as client:
        text = sources.whole_text(prompt, file)
        messages = [{"role": "system", "content": system}] if system else []
        if chat or system:
            messages.append({"role": "user", "content": text})
        stream = client.generate(
            model,
            "" if messages else text,
            messages=messages,
            max_tokens=max_tokens,
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            stop=stop or (),
            seed=seed,
            version=version,
            timeout=timeout,
        )
        for piece in stream:
            if not as_json:
                sys.stdout.write(piece)
                sys.stdout.flush()
        result = stream.result()
    if as_json:
        answer = {"text": result.text, "finish_reason": result.finish_reason}
        output.print_json(answer | {"metadata": output.plain(result.metadata)})
        return
    sys.stdout.write("\n")
    sys.stdout.flush()
    output.print_footer(result.metadata)


def _print_results(results: list[Any], answer: Any) -> None:
    output.print_json({"results": results, "metadata": output.plain(answer.metadata)})
