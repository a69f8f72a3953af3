"""Writes helm/roomcast/README.md: its introduction as it is, and the table of values made from the comments in values.yaml.

    chart-readme.py            writes it
    chart-readme.py --check    only says whether it is up to date, by the exit code

A comment that begins with `# --` describes the key below it. A key without one belongs to the key that it is in, which must have one then.
"""

import json
import pathlib
import re
import sys

import yaml

CHART = pathlib.Path(__file__).parent.parent / "helm" / "roomcast"
MARKER = "<!-- Made from the comments in values.yaml by scripts/chart-readme.py. -->\n"


def comments(lines: list[str]) -> dict[str, str]:
    """The description of each key that has one, by its path."""
    found: dict[str, str] = {}
    path: list[tuple[int, str]] = []
    text: list[str] = []
    for line in lines:
        bare = line.strip()
        if bare.startswith("# --"):
            text = [bare.removeprefix("# --").strip()]
        elif bare.startswith("#") and text:
            text.append(bare.removeprefix("#").strip())
        elif key := re.match(r"( *)([A-Za-z0-9_]+):", line):
            indent = len(key[1])
            path = [(other, name) for other, name in path if other < indent] + [(indent, key[2])]
            if text:
                found[".".join(name for _, name in path)] = " ".join(text)
            text = []
        else:
            text = []
    return found


def table(values: dict, described: dict[str, str]) -> str:
    rows = []

    def walk(value: object, path: str) -> None:
        inner = [name for name in described if name.startswith(f"{path}.")]
        if path in described:
            default = f"`{json.dumps(value, ensure_ascii=False)}`"
            if inner or len(default) > 60:
                default = "see values.yaml"
            rows.append(f"| `{path}` | {default} | {described[path]} |")
        if inner:
            for key, below in value.items():
                walk(below, f"{path}.{key}")
        elif path not in described:
            sys.exit(f"values.yaml: {path} has no comment that begins with `# --`")

    for key, value in values.items():
        walk(value, key)
    return "| value | default | what it is |\n|---|---|---|\n" + "\n".join(rows) + "\n"


def main() -> None:
    text = (CHART / "values.yaml").read_text()
    readme = CHART / "README.md"
    now = readme.read_text()
    introduction, marker, _ = now.partition(MARKER)
    if not marker:
        sys.exit("helm/roomcast/README.md: the marker is missing")
    should = f"{introduction}{MARKER}\n{table(yaml.safe_load(text), comments(text.splitlines()))}"
    if "--check" not in sys.argv:
        readme.write_text(should)
    elif should != now:
        sys.exit("helm/roomcast/README.md is out of date; run: .tools/deploy/venv/bin/python scripts/chart-readme.py")


main()
