"""Prints an OpenAPI document of the protocol, made of the types that open-inference-openapi was generated with.

The specification's own document is not in the package; its request and response types are, and its paths are the client's.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from open_inference.openapi import types

ENDPOINT, VERSION = sys.argv[1:]


def main() -> None:
    schemas: dict[str, Any] = {}

    def ref(name: str) -> dict[str, Any]:
        schema = getattr(types, name).schema(ref_template="#/components/schemas/{model}")
        schemas.update(schema.pop("definitions", {}))
        schemas[name] = schema
        return {"application/json": {"schema": {"$ref": f"#/components/schemas/{name}"}}}

    def answers(name: str) -> dict[str, Any]:
        said = {status: {"description": "error"} for status in ("400", "404", "413", "422", "503")}
        return {"200": {"description": "ok", **({"content": ref(name)} if name else {})}, **said}

    paths: dict[str, Any] = {
        "/v2": {"get": {"responses": answers("MetadataServerResponse")}},
        "/v2/health/live": {"get": {"responses": answers("")}},
        "/v2/health/ready": {"get": {"responses": answers("")}},
    }
    for base in (f"/v2/models/{ENDPOINT}", f"/v2/models/{ENDPOINT}/versions/{VERSION}"):
        paths[base] = {"get": {"responses": answers("MetadataModelResponse")}}
        paths[f"{base}/ready"] = {"get": {"responses": answers("")}}
        body = {"required": True, "content": ref("InferenceRequest")}
        paths[f"{base}/infer"] = {"post": {"requestBody": body, "responses": answers("InferenceResponse")}}
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Open Inference Protocol", "version": "2"},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    sys.stdout.write(json.dumps(document))


main()
