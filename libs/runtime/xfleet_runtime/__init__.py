"""What every service would otherwise copy: settings, logs, keys, clock, broker link."""
