"""Xray-core from Python: render, validate, drive, count, link."""
