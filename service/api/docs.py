"""`/docs`: the OpenAPI document as a page that people read and try requests on. Made here, of the document, so that it
works with the network closed, and nothing of it comes from elsewhere."""

from __future__ import annotations

import json
from functools import cache
from html import escape
from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Depends, Request, Response

from service.api.routing import known_parameters

PAGE_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
"""A page that loads its own two files and asks its own port: nothing else, and no script in its text."""
_STATIC = {"docs.css": "text/css", "docs.mjs": "text/javascript"}


def routes() -> APIRouter:
    """The document, the page and its files. Each is made once, and the same bytes are sent to all."""
    made: dict[str, bytes] = {}

    async def document(request: Request) -> Response:
        if "document" not in made:
            made["document"] = json.dumps(request.app.openapi(), ensure_ascii=False).encode()
        return Response(made["document"], media_type="application/json")

    async def page(request: Request) -> Response:
        if "page" not in made:
            made["page"] = html(request.app.openapi()).encode()
        headers = {"Content-Security-Policy": PAGE_POLICY, "Cache-Control": "no-cache"}
        return Response(made["page"], headers=headers, media_type="text/html; charset=utf-8")

    async def static(request: Request) -> Response:
        name = request.url.path.rpartition("/")[2]
        headers = {"Cache-Control": "no-cache"}
        return Response(_file(name), headers=headers, media_type=f"{_STATIC[name]}; charset=utf-8")

    router = APIRouter(dependencies=[Depends(known_parameters)])
    pages = {"/openapi.json": document, "/docs": page} | {f"/docs/{name}": static for name in _STATIC}
    for path, handler in pages.items():
        router.add_api_route(path, handler, methods=["GET", "HEAD"], include_in_schema=False)
    return router


@cache
def _file(name: str) -> bytes:
    return (files("service.api") / "static" / name).read_bytes()


def html(document: dict[str, Any]) -> str:
    """The whole page. Pure."""
    info = document["info"]
    operations = [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]
    tags = dict.fromkeys(tag for _, _, operation in operations for tag in operation.get("tags", ["other"]))
    sections = "\n".join(
        f'<section><h2 id="{escape(tag)}">{escape(tag)}</h2>\n'
        + "\n".join(_operation(document, *one) for one in operations if tag in one[2].get("tags", ["other"]))
        + "</section>"
        for tag in tags
    )
    schemas = "\n".join(
        f'<details id="schema-{escape(name)}"><summary><code>{escape(name)}</code></summary>'
        f"<pre>{escape(json.dumps(schema, indent=2))}</pre></details>"
        for name, schema in document["components"]["schemas"].items()
    )
    links = " ".join(f'<a href="#{escape(tag)}">{escape(tag)}</a>' for tag in (*tags, "schemas"))
    paragraphs = "".join(f"<p>{_prose(text)}</p>" for text in info["description"].split("\n\n"))
    return f"""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(info["title"])} API</title>
<link rel="stylesheet" href="/docs/docs.css">
<script type="module" src="/docs/docs.mjs"></script>
<header><h1>{escape(info["title"])} API</h1>{paragraphs}
<p>For programs: <a href="/openapi.json">openapi.json</a>.</p>
<p><label>Token for the requests of this page: <input id="token" type="password" autocomplete="off"></label>
It stays in this page, and is gone with it.</p>
<nav>{links}</nav></header>
<main>
{sections}
<section><h2 id="schemas">schemas</h2>
{schemas}</section>
</main>
</html>
"""


def _operation(document: dict[str, Any], method: str, path: str, operation: dict[str, Any]) -> str:
    answers = "".join(
        f"<tr><td>{escape(status)}<td>{escape(answer.get('description', ''))}<td>{_content(answer)}"
        for status, answer in operation["responses"].items()
    )
    return f"""<details class="operation">
<summary><b class="{method}">{method.upper()}</b> <code>{escape(path)}</code></summary>
<p>{_prose(operation.get("description", ""))}</p>
<form data-method="{method.upper()}" data-path="{escape(path)}">
{"".join(_parameter(one) for one in operation.get("parameters", []))}{_body(document, operation)}
<button>Send</button></form>
<table><tr><th>Answer<th>what<th>as{answers}</table>
</details>"""


def _parameter(parameter: dict[str, Any]) -> str:
    name = escape(parameter["name"])
    required = " required" if parameter.get("required") else ""
    text = parameter.get("description", "")
    return (
        f'<label><code>{name}</code> <input name="{name}" data-in="{parameter["in"]}"{required}>'
        f" {escape(parameter['in'])}{f', {_prose(text)}' if text else ''}</label>"
    )


def _body(document: dict[str, Any], operation: dict[str, Any]) -> str:
    body = operation.get("requestBody")
    if body is None:
        return ""
    schema = body["content"]["application/json"]["schema"]
    name = schema.get("$ref", "").rpartition("/")[2]
    fields = document["components"]["schemas"].get(name, schema).get("properties", {})
    example = {field: _example(of) for field, of in fields.items()}
    return (
        f"<label>body, {_schema(schema)}{'' if body.get('required') else ', may be left out'}"
        f"<textarea name=body rows={len(example) + 2}>{escape(json.dumps(example, indent=2))}</textarea></label>"
    )


def _example(schema: dict[str, Any]) -> Any:
    """A value to begin with."""
    if "default" in schema:
        return schema["default"]
    if schema.get("examples"):
        return schema["examples"][0]
    kinds = [schema, *schema.get("anyOf", [])]
    for kind, value in (("integer", kinds[0].get("minimum", 0)), ("boolean", False), ("object", {})):
        if any(one.get("type") == kind for one in kinds):
            return value
    return (schema.get("enum") or [""])[0]


def _content(answer: dict[str, Any]) -> str:
    return ", ".join(
        f"{escape(kind)} {_schema(form.get('schema', {}))}"
        for kind, form in answer.get("content", {}).items()
    )


def _schema(schema: dict[str, Any]) -> str:
    name = schema.get("$ref", "").rpartition("/")[2]
    return f'<a href="#schema-{escape(name)}"><code>{escape(name)}</code></a>' if name else ""


def _prose(text: str) -> str:
    """Text in which `names` are marked."""
    parts = escape(text).split("`")
    return "".join(f"<code>{part}</code>" if at % 2 else part for at, part in enumerate(parts))
