"""The Grafana dashboards: against Grafana's published schema, and for what makes a dashboard pleasant."""

import enum
import json
import re
import types
import typing
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models import dashboard as model

from cases import case, end

FOLDER = Path(__file__).parent.parent.parent / "deploy/grafana/dashboards"
VARIABLES = {
    "overview": {"datasource", "organization", "pipeline", "branch"},
    "pipeline": {"datasource", "organization", "pipeline", "branch"},
    "queues": {"datasource", "organization", "cluster", "queue"},
    "kitepush": {"datasource", "job", "instance"},
}


def dropped(ours, theirs, path=""):
    """Keys and values of the file that the schema's own model doesn't carry through."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        for key, value in ours.items():
            if key not in theirs:
                if value not in (None, [], {}):
                    yield f"{path}.{key} is not in the schema"
            else:
                yield from dropped(value, theirs[key], f"{path}.{key}")
    elif isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for index, (one, other) in enumerate(zip(ours, theirs)):
            yield from dropped(one, other, f"{path}[{index}]")
    elif ours != theirs:
        yield f"{path} is {ours!r}, the schema reads {theirs!r}"


def mistyped(value, hint, path):
    """Values whose type, or word, isn't the schema's."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is object or hint is typing.Any or isinstance(hint, typing.TypeVar):
        if hasattr(value, "__dict__") and not isinstance(value, (str, enum.Enum)):
            yield from mistyped(value, type(value), path)
    elif origin is typing.Literal:
        if value not in arguments:
            yield f"{path} is {value!r}, allowed: {arguments}"
    elif origin in (typing.Union, types.UnionType):
        found = [list(mistyped(value, argument, path)) for argument in arguments]
        if all(found):
            # The error of the alternative that came furthest.
            yield max((errors[0] for errors in found), key=lambda error: not error.startswith(path + " is"))
    elif origin is list:
        if not isinstance(value, list):
            yield f"{path} is {value!r}, not a list"
        else:
            for index, item in enumerate(value):
                yield from mistyped(item, arguments[0], f"{path}[{index}]")
    elif origin is dict:
        for key, item in value.items() if isinstance(value, dict) else ():
            yield from mistyped(item, arguments[1], f"{path}.{key}")
    elif isinstance(hint, type) and issubclass(hint, enum.Enum):
        if value not in [member.value for member in hint]:
            yield f"{path} is {value!r}, allowed: {[member.value for member in hint]}"
    elif isinstance(hint, type) and hint.__module__.startswith("grafana_foundation_sdk"):
        if isinstance(value, dict):  # the model leaves some objects as they are
            raw, value = value, hint.from_json(value)
            yield from dropped(raw, json.loads(json.dumps(value, cls=JSONEncoder)), path)
        if not isinstance(value, hint):
            yield f"{path} is {value!r}, not a {hint.__name__}"
            return
        for name, field in typing.get_type_hints(hint, vars(__import__(hint.__module__, fromlist=["x"]))).items():
            if hasattr(value, name):
                yield from mistyped(getattr(value, name), field, f"{path}.{name}")
    elif isinstance(hint, type) and not isinstance(value, (int, float) if hint is float else hint) or (hint is int and isinstance(value, bool)):
        yield f"{path} is {value!r}, not {hint.__name__}"


def schema_problems(document):
    parsed = model.Dashboard.from_json(document)
    again = json.loads(json.dumps(parsed, cls=JSONEncoder))
    yield from dropped(document, again)
    yield from mistyped(parsed, model.Dashboard, "")


def manners(name, document):
    """Titles, descriptions, units, words for no data, places, links, variables."""
    panels = document["panels"]
    seen = [panel["id"] for panel in panels]
    if len(seen) != len(set(seen)):
        yield "two panels have one id"
    cells = {}
    for panel in panels:
        where, place = panel["title"], panel["gridPos"]
        if place["x"] + place["w"] > 24:
            yield f"{where}: wider than the page"
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            if cell in cells:
                yield f"{where}: lies over {cells[cell]}"
                break
            cells[cell] = where
        if panel["type"] == "row":
            continue
        defaults = panel["fieldConfig"]["defaults"]
        if not panel.get("description", "").endswith("."):
            yield f"{where}: no description"
        if not defaults.get("noValue"):
            yield f"{where}: says nothing when there is no data"
        if not defaults.get("unit"):
            yield f"{where}: no unit"
        if panel["type"] == "timeseries":
            for target in panel["targets"]:
                if not target["legendFormat"]:
                    yield f"{where}: no legend"
            if not panel["options"]["legend"]["showLegend"]:
                yield f"{where}: hides its legend"
        for target in panel["targets"]:
            text = target["expr"]
            if text.count("(") != text.count(")") or "$datasource" not in json.dumps(panel["datasource"]).replace("{", "").replace("}", ""):
                yield f"{where}: unbalanced, or of a fixed data source"
            if re.search(r"(rate|increase)\(\s*(sum|max|avg|count)", text):
                yield f"{where}: rates a sum"
            if re.search(r"_(total|bucket|count|sum)\b(?!.*(rate|increase))", text) and not re.search(r"(rate|increase)\(", text):
                yield f"{where}: shows a counter as it stands"
            for used in re.findall(r"\$\{?(\w+)", re.sub(r'"\$1"', "", text)):
                if used not in VARIABLES[name] | {"__range", "__rate_interval", "__interval"}:
                    yield f"{where}: there is no variable {used}"
    variables = {variable["name"] for variable in document["templating"]["list"]}
    if variables != VARIABLES[name]:
        yield f"variables are {variables}"
    if name != "kitepush" and "https://buildkite.com" not in json.dumps(document):
        yield "no link to Buildkite"


register_default_plugins()
documents = {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}
case("four dashboards, each with an id of its own", [] if documents.keys() == VARIABLES.keys() and len({d["uid"] for d in documents.values()}) == 4 else [str(list(documents))])
for name, document in documents.items():
    if case(f"{name}: Grafana's schema", schema_problems(document)):
        case(f"{name}: described, legible, linked", manners(name, document))
end()
