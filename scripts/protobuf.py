"""Compiles the gRPC messages: serving/open_inference.proto to serving/open_inference.binpb, a descriptor set.

The server reads the descriptors instead of generated modules, because those would register their names for the whole process, where
the clients of the protocol register the same ones.
"""

from __future__ import annotations

import sys
from pathlib import Path

from grpc_tools import protoc

SOURCE = Path(__file__).parents[1] / "src/predis/serving/open_inference.proto"
TARGET = SOURCE.with_suffix(".binpb")


def main(target: Path = TARGET) -> int:
    arguments = [f"--proto_path={SOURCE.parent}", f"--descriptor_set_out={target}", str(SOURCE)]
    status: int = protoc.main(["protoc", *arguments])
    return status


if __name__ == "__main__":
    sys.exit(main())
