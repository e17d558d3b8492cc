"""Makes the protobuf modules of `xfleet_xraykit/pb` from the `.proto` files beside them.

Run it with the development dependencies after changing a `.proto`: `python libs/xraykit/tools/build_pb.py`.
"""

import importlib
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> int:
    """Writes `*_pb2.py` and their stubs; the exit code is protoc's."""
    files = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "xfleet_xraykit" / "pb").glob("*.proto"))
    protoc = importlib.import_module("grpc_tools.protoc")
    return int(protoc.main(["protoc", f"-I{ROOT}", f"--python_out={ROOT}", f"--pyi_out={ROOT}", *files]))


if __name__ == "__main__":
    sys.exit(main())
