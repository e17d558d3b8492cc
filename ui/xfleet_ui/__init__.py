"""The panel's look: templates, own and vendored assets, and the filters that turn figures into words."""

from pathlib import Path

TEMPLATES_DIR = Path(__file__).parent / "templates"
STATIC_DIR = Path(__file__).parent / "static"
VENDOR_LOCK = Path(__file__).parent / "vendor.lock.toml"
