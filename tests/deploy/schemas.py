"""Writes the JSON schemas of Kubernetes' objects for kubeconform: those of Kubernetes itself, and of the custom resources that the chart
makes, which come as definitions in YAML.

    schemas.py KUBERNETES_SCHEMAS OUT CRD..
"""

import json
import pathlib
import sys

import yaml

# The oldest release that the chart supports, and a recent one.
RELEASES = ("1.30", "1.37")


def kubernetes(source: pathlib.Path, out: pathlib.Path) -> None:
    for release in RELEASES:
        folder = out / release
        folder.mkdir(parents=True)
        for file in (source / f"v{release}.0-local-strict").glob("*.json"):
            # The references point into the publisher's own site, and so does `$id`; beside each other they find themselves.
            schema = json.loads(file.read_text().replace("/api/_definitions.json", "_definitions.json"))
            schema.pop("$id", None)
            schema.pop("$schema", None)
            (folder / file.name).write_text(json.dumps(schema))


def strict(schema: object) -> object:
    """Refuses properties that a definition does not have, as the API server does when asked for strict validation."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: strict(value) for key, value in schema.items()}
    if schema.pop("x-kubernetes-int-or-string", False):
        schema.pop("type", None)
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    open_ended = schema.pop("x-kubernetes-preserve-unknown-fields", False)
    if isinstance(schema.get("properties"), dict) and not open_ended:
        schema.setdefault("additionalProperties", False)
    return schema


def custom(file: pathlib.Path, out: pathlib.Path) -> None:
    for definition in yaml.safe_load_all(file.read_text()):
        if not definition or definition.get("kind") != "CustomResourceDefinition":
            continue
        spec = definition["spec"]
        for version in spec["versions"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            # The root holds what every object has.
            schema["properties"]["metadata"] = {"type": "object"}
            name = f"{spec['names']['kind']}-{spec['group'].split('.')[0]}-{version['name']}.json".lower()
            (out / "custom").mkdir(parents=True, exist_ok=True)
            (out / "custom" / name).write_text(json.dumps(schema))


def main() -> None:
    source, out = (pathlib.Path(argument) for argument in sys.argv[1:3])
    kubernetes(source, out)
    for file in sys.argv[3:]:
        custom(pathlib.Path(file), out)


main()
