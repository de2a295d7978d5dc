"""The tables of docs/methods/*.md, made of JSON in benchmarks/results; no number there is written by hand.

python benchmarks/method_tables.py            rewrites what is between <!-- results --> and <!-- /results -->
python benchmarks/method_tables.py --check    writes nothing, and ends with 1 when a page is not up to date

Results are those of compare_digits.json. Between <!-- ablation --> and <!-- /ablation --> stand iSM's parts, those of
ablation_*.json with guidance, and beside them of ablation_*_unguided.json, the same runs at W = 1. On the page
one_step.md a section one_step_SET is made of one_step_SET.json, by benchmarks/one_step.py, and one compare_NAME of
compare_NAME.json. Without these files the sections are empty. The others are written by anystep compare --json, see
docs/evaluation.md.
"""

import argparse
import json
import re
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from anystep.evaluation.protocol import summarise
from anystep.figures.methods import by_group, display_name
from anystep.objectives import OBJECTIVES
from anystep.recipes import PAPER

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "compare_digits.json"
PAGES = ROOT / "docs" / "methods"
INDEX = "README.md"
#: what every method stands beside on its page
BESIDE = ("shortcut", "shortcut_paper", "flow_matching")
#: the page of iSM's parts, and the files that its section is made of
ABLATION = "improved_shortcut.md"
ABLATIONS = ("ablation_digits", "ablation_fashion_mnist")

#: the page about weights and other levers; a section one_step_SET is made of results/one_step_SET.json
ONE_STEP = "one_step.md"

Record = Mapping[str, Any]


def pages(results: Path, folder: Path) -> dict[Path, str]:
    """Return what every page should hold: as it stands, with the results of today in its section.

    Raises SystemExit for a page that is missing, or has no section.
    """
    record = json.loads(results.read_text(encoding="utf-8")) if results.exists() else None
    compared = {row["method"] for row in record["summary"]} if record else set()
    titles, made = {}, {}
    for name in [*OBJECTIVES, *sorted(compared - OBJECTIVES.keys() - PAPER.keys())]:
        path = folder / f"{name}.md"
        if not path.exists():
            raise SystemExit(f"{path} is missing: every method has a page")
        titles[name] = path.read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
    as_published = {name: f"{titles[method]}, as published" for name, method in PAPER.items()}
    for name in titles:
        rows = [name, *(other for other in BESIDE if other != name)]
        names = titles | as_published
        made[folder / f"{name}.md"] = table(record, rows, names) if record and name in compared else ""
    made[folder / INDEX] = table(record, sorted(compared), titles | as_published, whole=True) if record else ""
    texts = {path: with_section(path, path.read_text(encoding="utf-8"), "results", body) for path, body in made.items()}
    page = folder / ABLATION
    body = "".join(ablation(results.parent, name) for name in ABLATIONS)
    texts |= {page: with_section(page, texts[page], "ablation", body)}
    page = folder / ONE_STEP
    text = page.read_text(encoding="utf-8")
    for name in re.findall(r"<!-- (one_step_\w+) -->", text):
        text = with_section(page, text, name, one_step(results.parent / f"{name}.json"))
    for name in re.findall(r"<!-- (compare_\w+) -->", text):
        text = with_section(page, text, name, comparison(results.parent / f"{name}.json"))
    return texts | {page: text}


def with_section(path: Path, text: str, name: str, body: str) -> str:
    """Return the text of the page at ``path`` with another section between the marks of that name."""
    section = re.compile(f"(<!-- {name} -->\n).*?(<!-- /{name} -->)", re.DOTALL)
    if len(section.findall(text)) != 1:
        raise SystemExit(f"{path} must have one <!-- {name} --> and one <!-- /{name} --> after it")
    return section.sub(lambda found: found[1] + body + found[2], text)


def ablation(folder: Path, name: str) -> str:
    """Return the table of iSM's parts in a folder's NAME.json and NAME_unguided.json; nothing where these are not."""
    paths = [folder / f"{name}.json", folder / f"{name}_unguided.json"]
    if not all(path.exists() for path in paths):
        return ""
    records = [json.loads(path.read_text(encoding="utf-8")) for path in paths]
    guided, plain = ({(row["method"], row["steps"]): row for row in record["summary"]} for record in records)
    (scale,) = {row["guidance"] for row in records[0]["scores"]} - {1}
    budgets = sorted({steps for _, steps in guided})
    few = budgets[0]
    heads = [f"{records[0]['scores'][0]['protocol']['reference']}, distance at steps", *map(str, budgets)]
    heads += [f"accuracy at {few}", f"recall at {few}", f"distance at {few}, W = 1", f"accuracy at {few}, W = 1"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    for method in dict.fromkeys(method for method, _ in guided):
        first, unguided = guided[method, few], plain[method, few]
        line = [display_name(method), *(over_seeds(guided[method, steps], "frechet") for steps in budgets)]
        line += [over_seeds(first, "accuracy"), over_seeds(first, "recall")]
        told = method.startswith("+")
        lines.append([*line, *(over_seeds(unguided, metric) if told else "" for metric in ("frechet", "accuracy"))])
    lines += [floor_line(records[0], len(budgets), len(heads) - 1)] if has_floor(records[0]) else []
    text = markdown(lines)
    real = records[0]["scores"][0]["accuracy_real"]
    told = [
        "±: largest minus smallest over the seeds.",
        f"Parts at W = {scale:g}, in the last columns at W = 1; the shortcut model has no guidance.",
        f"The classifier is right on {real:.3f} of real data.",
    ]
    *lines, _, _ = notes(records[0], [], paths[0], told).splitlines()
    where = f"../../{RESULTS.relative_to(ROOT).parent}"
    lines.append(
        f"[Results]({where}/{paths[0].name}), [at W = 1]({where}/{paths[1].name}), with commits and protocols:"
    )
    commands = "\n".join(wrapped(record["command"]) for record in records)
    return f"\n{text}\n\n" + "\n".join(lines) + f"\n\n```\n{commands}\n```\n\n"


def one_step(path: Path) -> str:
    """Return the tables of a file of `one_step.py`: runs that are judged, then trials; nothing without the file."""
    if not path.exists():
        return ""
    record = json.loads(path.read_text(encoding="utf-8"))
    results, parts = record["results"]["summary"], []
    for trial in (False, True):
        for length in sorted({row["length"] for row in results}, reverse=True):
            rows = [row for row in results if (row["trial"], row["length"]) == (trial, length)]
            parts += [one_step_table(rows, record["protocol"])] if rows else []
    if "error" in results[0]:
        parts.append(error_table(results))
    if measured := [row for row in results if "gradient_ratio" in row and row["length"] == 1]:
        parts.append(gradient_table(measured))
    where = f"../../{RESULTS.relative_to(ROOT).parent}/{path.name}"
    parts.append(f"[Results]({where}) with the commands, commit, machine and every seed.")
    return "\n" + "\n\n".join(parts) + "\n\n"


def comparison(path: Path) -> str:
    """Return the tables of a comparison, one per Frechet distance, with recall in its features; nothing without one."""
    if not path.exists():
        return ""
    record = json.loads(path.read_text(encoding="utf-8"))
    rows = {(row["method"], row["steps"]): row for row in record["summary"]}
    budgets = sorted({steps for _, steps in rows})
    few, text = budgets[0], ""
    for metric in [name for name in record["summary"][0]["mean"] if name.partition("@")[0] == "frechet"]:
        recall = metric.replace("frechet", "recall")
        lines = [[f"`{metric}` at steps", *map(str, budgets), f"recall at {few}"]]
        lines += [["---", *["---:"] * (len(budgets) + 1)]]
        for method in dict.fromkeys(method for method, _ in rows):
            means = [rows[method, steps]["mean"] for steps in budgets]
            lines.append([f"`{method}`", *(fine(mean.get(metric)) for mean in means), number(means[0].get(recall))])
        if metric in record["summary"][0]["floor"]:
            lines.append(floor_line(record, len(budgets), len(budgets) + 1, metric))
        text += "\n" + markdown(lines) + "\n"
    return f"{text}\n{notes(record, [], path, [])}\n\n"


def one_step_table(rows: Sequence[Record], protocol: Record) -> str:
    """Return the table of one length, the variants in the order of one-step distance."""
    distance = protocol.get("distance", "frechet")
    steps = sorted({row["steps"] for row in rows})
    found = {(row["variant"], row["steps"]): row for row in rows}
    variants = sorted({row["variant"] for row in rows}, key=lambda name: (found[name, steps[0]][distance], name))
    optional = {"recall": f"recall at {steps[0]}", "flow_loss": "flow loss"}
    optional = {field: head for field, head in optional.items() if any(field in row for row in rows)}
    heads = ["variant", *map(str, steps), *optional.values(), "seeds"]
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)]]
    decimals = 3 if distance == "frechet" else 4
    for name in variants:
        first = found[name, steps[0]]
        line = [f"`{name}`", *(with_deviation(found[name, n], distance, decimals) for n in steps)]
        line += [f"{first[field]:.{2 if field == 'recall' else 3}f}" if field in first else "" for field in optional]
        lines.append([*line, ", ".join(map(str, first["seeds"]))])
    if f"{distance}_floor" in rows[0]:
        floor = statistics.mean(row[f"{distance}_floor"] for row in rows)
        lines.append(["floor", *[f"{floor:.{decimals}f}"] * len(steps), *[""] * len(optional), ""])
    length, trial = rows[0]["length"], rows[0]["trial"]
    about = "The recipe's length" if length == 1 else f"{length:g} of the recipe's length"
    judged = "trials, on which settings were chosen" if trial else "runs that judge the settings"
    what = f"{distance.capitalize()} distance in each number of steps, {protocol['num']:,} samples"
    return f"{about}; {judged}; {what}:\n\n{markdown(lines)}"


def error_table(rows: Sequence[Record]) -> str:
    """Return the table of how far samples are from those of the exact flow, in the order of the one-step error."""
    steps = sorted({row["steps"] for row in rows})
    found = {(row["variant"], row["steps"]): row["error"] for row in rows}
    lines = [["variant", *map(str, steps)], ["---", *["---:"] * len(steps)]]
    for name in sorted({row["variant"] for row in rows}, key=lambda name: (found[name, steps[0]], name)):
        lines.append([f"`{name}`", *(f"{found[name, n]:.3f}" for n in steps)])
    about = "Error against the exact flow in each number of steps, in standard deviations of the data"
    return f"{about}:\n\n{markdown(lines)}"


def gradient_table(rows: Sequence[Record]) -> str:
    """Return the table of how the gradients of the two kinds of example compare, over the last 30 % of the runs."""
    heads = ["variant", "norm, relative to that of the flow examples", "cosine with that of the flow examples"]
    lines = [heads, ["---", "---:", "---:"]]
    for name in sorted({row["variant"] for row in rows}):
        same = [row for row in rows if row["variant"] == name]
        means = [statistics.mean(row[field] for row in same) for field in ("gradient_ratio", "gradient_cosine")]
        lines.append([f"`{name}`", *(f"{mean:.2f}" for mean in means)])
    text = markdown(lines)
    return f"Gradient of the self-consistency examples, in single updates of the last 30 % of the runs:\n\n{text}"


def with_deviation(row: Record, distance: str, decimals: int) -> str:
    """Return a distance, with its standard deviation over seeds where there are several."""
    return f"{row[distance]:.{decimals}f}" + (f" ± {row['deviation']:.{decimals}f}" if "deviation" in row else "")


def wrapped(command: str) -> str:
    """Return a command in lines that a shell takes for one, each beginning with an option."""
    lines = [""]
    for part in re.split(" (?=--)", command):
        if len(lines[-1]) + len(part) > 112:
            lines.append("   ")
        lines[-1] += f" {part}" if lines[-1] else part
    return " \\\n".join(lines)


def has_floor(record: Record) -> bool:
    """Return whether the distances have a floor: results of earlier versions have none."""
    return "frechet" in record["summary"][0].get("floor", {})


def markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return the lines of a table."""
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def floor_line(record: Record, budgets: int, columns: int, metric: str = "frechet") -> list[str]:
    """Return the line of the floor: as many examples drawn from the reference, at every one of the first columns."""
    floor = fine(record["summary"][0]["floor"][metric])
    return ["floor", *[floor] * budgets, *[""] * (columns - budgets)]


def over_seeds(row: Mapping[str, Any], metric: str) -> str:
    """Return a cell: the mean over seeds and how far they are apart, shares with three decimals."""
    value, spread = row["mean"].get(metric), row["spread"].get(metric)
    if value is None:
        return number(value)
    decimals = 2 if metric == "frechet" and value < 10 else 1 if metric == "frechet" else 3
    return f"{value:.{decimals}f}" + (f" ± {spread:.{decimals}f}" if len(row["seeds"]) > 1 else "")


def table(record: Record, methods: Sequence[str], titles: Mapping[str, str], whole: bool = False) -> str:
    """Return the section: distances at every budget and recall at the fewest steps, a row a method, and the protocol.

    ``whole``: the methods stand in the groups of P1's Table 1, with what each run cost.
    """
    rows = {(row["method"], row["steps"]): row for row in record["summary"]}
    budgets = sorted({steps for _, steps in rows})
    several = max(len(row["seeds"]) for row in rows.values()) > 1
    heads = [*map(str, budgets), *(["spread"] if several else []), f"recall at {budgets[0]}"]
    heads += ["forward passes"] if whole else []
    lines = [["Frechet distance at steps", *heads]]
    for part, names in (by_group(methods) if whole else {"": methods}).items():
        lines += [[f"*{part}*", *[""] * len(heads)]] if part else []
        lines += [
            cells(titles[name], [rows.get((name, steps)) for steps in budgets], several, whole)
            for name in names
            if any((name, steps) in rows for steps in budgets)
        ]
    lines.insert(1, ["---", *["---:"] * len(heads)])
    lines += [floor_line(record, len(budgets), len(heads))] if has_floor(record) else []
    text = markdown(lines)
    spread = ["Spread: largest minus smallest distance over the seeds, at the budget where that is most."] * several
    return f"\n{text}\n\n{notes(record, methods, RESULTS, spread)}\n\n"


def cells(title: str, rows: Sequence[Mapping[str, Any] | None], several: bool, whole: bool) -> list[str]:
    """Return one line of the table; ``rows`` has what is known at each budget, None where nothing was scored."""
    meant = [row for row in rows if row and row["caution"] is None]
    spreads = [row["spread"]["frechet"] for row in meant if row["spread"].get("frechet") is not None]
    line = [title, *(distance(row) for row in rows)]
    line += [number(max(spreads, default=None))] if several else []
    line.append(number(rows[0]["mean"].get("recall") if rows[0] else None))
    known = next(row for row in rows if row)
    return [*line, f"{known['forward_units']:,}"] if whole else line


def distance(row: Mapping[str, Any] | None) -> str:
    """Return a cell, in parentheses where the method is not intended to support the budget."""
    text = fine(row["mean"].get("frechet") if row else None)
    return f"({text})" if row and row["caution"] and text != "–" else text


def fine(value: float | None) -> str:
    """Return a distance with a third decimal below 1, where methods are close to each other."""
    return number(value) if value is None or value >= 1 else f"{value:.3f}"


def number(value: float | None) -> str:
    """Return a value with two decimals, one from 100 on, a dash for none."""
    if value is None:
        return "–"
    return f"{value:.2f}" if abs(value) < 100 else f"{value:,.1f}"


def notes(record: Record, methods: Sequence[str], results: Path, told: Sequence[str]) -> str:
    """Return the lines under the table: how the numbers came about, what its marks mean (``told``), what failed."""
    protocol = record["scores"][0]["protocol"]  # what is told of it here is the same for all
    seeds = max((row["seeds"] for row in record["summary"]), key=len)
    over = f"mean of seeds {', '.join(map(str, seeds))}" if len(seeds) > 1 else f"seed {seeds[0]}"
    lines = [
        f"{summarise(protocol)}; {over}; {record['budget']:,} network forward passes a run.",
        *told,
    ]
    if any(row["caution"] for row in record["summary"] if row["method"] in methods):
        lines.append("( ): conditions that the method is not intended to support.")
    for failure in record.get("failures", []):
        if failure["method"] in methods:
            where = "" if failure["steps"] is None else f", {failure['steps']} steps"
            lines.append(f"Failed: {failure['method']}, seed {failure['seed']}{where}: {failure['why']}.")
    if results == RESULTS and all(row["method"] not in PAPER for row in record["summary"]):
        lines.append("Made with the digits recipe of before [one step without a price](one_step.md).")
    where = f"../../{RESULTS.relative_to(ROOT).parent}/{results.name}"
    return "\n".join([*lines, f"`{record['command']}`,", f"[results]({where}) with commit, device and protocol."])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; end with 1 when a page is not up to date")
    args = parser.parse_args()
    stale = {path: text for path, text in pages(RESULTS, PAGES).items() if text != path.read_text(encoding="utf-8")}
    for path, text in stale.items():
        if args.check:
            print(f"{path.relative_to(ROOT)} is not up to date: python benchmarks/method_tables.py", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
            print(path)
    return 1 if args.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
